"""What `import suite` finds in site-packages: it gives way to the package, which lies in the folder of reducerbench."""

import sys

del sys.modules[__name__]
import reducerbench  # noqa: E402, F401
