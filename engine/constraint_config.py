"""What compiling a constraint may cost, as plain data that travels to the child process. No torch."""

from dataclasses import dataclass

__all__ = ["ConstraintConfig"]


@dataclass(frozen=True, slots=True)
class ConstraintConfig:
    """compile_s: wall clock of compiling one constraint. cpu_s, memory_bytes: CPU time and memory of trying one out,
    beyond which it is refused. cache_bytes: for compiled constraints of one vocabulary.
    """

    compile_s: float = 5.0
    cpu_s: float = 1.0
    memory_bytes: int = 1 << 30
    cache_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        """Raise ValueError with what was wrong and what is allowed."""
        for name in ("compile_s", "cpu_s", "cache_bytes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: use more than 0")
        if self.memory_bytes < 64 << 20:
            raise ValueError(f"memory_bytes is {self.memory_bytes}: use at least 64 MiB")
