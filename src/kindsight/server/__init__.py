"""Predictions over HTTP: ``kindsight serve``. Needs the extra ``serve``.

A request passes :mod:`.guard` (host, token, size and time of an upload, response headers), is
read by :mod:`.uploads`, waits in the queue of :mod:`.engine`, and is predicted on one of its
threads by a network of :mod:`.models`, which swaps bundles that change.
"""
