"""A capture of some work, in one line."""


def recorded(device, work):
    """A capture of `work()`, and what it gave."""
    capture = device.capture()
    with capture.recording():
        made = work(capture)
    return capture, made


def replay(capture):
    with capture.turn():
        capture.replay()
