"""`python -m kernels.native`: compile the C kernels into the package, so that a machine without a compiler has them."""

import sys

from kernels.native.build import BuildFailed, compile_library, packaged_folder


def main() -> int:
    """Compile; prints where to. Returns 1 with the reason on stderr where that is not possible."""
    try:
        print(compile_library(packaged_folder()))
    except BuildFailed as error:
        print(f"the C kernels were not compiled: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
