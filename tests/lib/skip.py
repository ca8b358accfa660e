"""What a test raises when this machine cannot do what it needs."""


class Skip(Exception):
    pass
