"""Where the packages lie. Everything else about the distribution is in pyproject.toml.

The rooms `passes`, `backends`, `frontends` and `fuzz` are folders beside `effcc` but packages inside it: `package_dir`
maps them here, and the relative links `effcc/passes -> ../passes` do the same in a checkout.
"""

from setuptools import find_packages, setup

ROOMS = ("passes", "backends", "frontends", "fuzz")

setup(
    package_dir={"effcc": "effcc"} | {f"effcc.{room}": room for room in ROOMS},
    packages=["effcc"]
    + [f"effcc.{name}" for name in find_packages("effcc") if name.partition(".")[0] not in ROOMS]
    + [f"effcc.{room}" for room in ROOMS]
    + [f"effcc.{room}.{name}" for room in ROOMS for name in find_packages(room)],
)
