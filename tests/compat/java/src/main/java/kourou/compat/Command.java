package kourou.compat;

/** What the program can be asked to do. An exception ends it with exit code 1 and its text on standard error. */
interface Command {
    void run(Arguments arguments, Results results) throws Exception;
}
