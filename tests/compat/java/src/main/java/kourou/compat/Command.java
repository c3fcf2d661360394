package kourou.compat;

/** What the program can be asked to do. An exception is told as its error. */
interface Command {
    void run(Arguments arguments, Orders orders, Results results) throws Exception;
}
