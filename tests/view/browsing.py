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


def saved(page, name, what, path):
    """Save a chart by a button of its menu; the file's path."""
    chart = card(page, name)
    chart.scroll_into_view_if_needed()
    if chart.locator("details[open]").count() == 0:
        chart.locator("summary").click()
    with page.expect_download() as coming:
        chart.get_by_role("button", name=what).click()
    coming.value.save_as(path)
    return path
