from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "qemu: boots an emulated machine; needs root, qemu-system-x86 and debootstrap")
