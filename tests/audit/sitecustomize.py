"""Found by fresh interpreters of the tests: they are watched as the tests themselves are."""

import os

if os.environ.get("FINETUNE_AUDIT"):
    import audited

    audited.install()
