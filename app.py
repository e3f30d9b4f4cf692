"""The door: everything that the pages share is in `shell`."""

import shell

shell.main()
