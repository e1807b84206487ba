"""How our own processes keep their memory; nobody else's is touched."""

import ctypes
import sys


def keep_freed_memory() -> None:
    """Let glibc reuse the memory of freed tensors instead of giving it back to the kernel and asking again each step.

    On a CPU the kernel's zeroing of fresh pages costs a third of a training step otherwise. It is for the whole process
    and for good, so only commands call it, in their own process and in those that they start.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):  # glibc; musl has no mallopt
        m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4  # malloc.h
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
        libc.mallopt(m_top_pad, 2**28)


def give_back_freed_memory() -> None:
    """Give the kernel what glibc keeps of freed memory in holes between what is used, as large films leave them."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
