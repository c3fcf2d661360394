"""What a broker does: operations check a request against the state and propose records to the journal.

journal turns what meets in one turn into one frame; message and section_reader know the stored form; send, delivery
(with subscription and receipt), pull and offsets are what clients ask; definitions and search what operators
ask; clients and assignment are soft state; retention, snapshots and scrubbing keep the log in bounds and whole.
"""
