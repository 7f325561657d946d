import pathlib

__path__ += [str(p / "tasks") for p in [pathlib.Path(__file__).parents[2]] if (p / "pyproject.toml").is_file()]
