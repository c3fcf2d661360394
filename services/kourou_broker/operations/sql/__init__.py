"""SQL92 conditions over the properties of messages, as RocketMQ has them: compiled once, evaluated on the broker.

A text becomes tokens and rules (`grammar.lark`, `parser`); the rules become operands with a type (`meaning`); operands
become small functions that a message's properties are given to (`conditions`, `properties`). No text of a user is ever
evaluated as a program.
"""
