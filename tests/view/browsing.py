"""What tests of the page ask of a tab."""

import time


def until(page, script, *args, seconds=15):
    """Wait until a script gives something true; the page's policy forbids the usual way, which evaluates text."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := page.evaluate(script, *args):
            return found
        time.sleep(0.05)
    raise AssertionError(f"never came true within {seconds} s: {script}; the page shows {state(page)}")


def state(page):
    return page.evaluate("() => window.__view?.state()")


def drawn(page):
    until(page, "() => document.querySelectorAll('.body canvas, .body svg').length > 0")


def card(page, name):
    return page.locator(f"[data-chart^='{name}']").first
