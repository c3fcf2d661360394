"""How an operation of any service refuses: with the API's own status code and a text for the person who reads it."""


class Refused(Exception):
    """The request cannot be served; nothing of it was done. code is one of apache.rocketmq.v2.Code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
