"""A cost model of a tiny model on an imagined machine, whose seconds a test can reckon by hand."""

from engine.chunk_limit import Shape
from engine.cost_model import CostModel, WeightBytes
from engine.models.config import ModelConfig

STEP_S, TOKEN_S = 0.010, 0.001


def linear_cost_model(block_size: int = 4) -> CostModel:
    """A step takes 10 ms and 1 ms more for every token, whatever it attends to."""
    config = ModelConfig.from_dict(
        {
            "model_type": "llama",
            "vocab_size": 8,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "head_dim": 2,
            "max_position_embeddings": 4096,
        }
    )
    model = CostModel(config, WeightBytes(100_000_000, 1), itemsize=2, block_size=block_size)
    plans = [[Shape(start, 1, 1)] * n for n in (1, 2, 4, 8, 40) for start in (1, 99)]
    plans += [[Shape(start, n, n_logits)] for n in (2, 4, 16, 64, 512) for start in (0, 100) for n_logits in (0, 1)]
    model.calibrate([(model.step(plan), STEP_S + TOKEN_S * sum(row.n for row in plan)) for plan in plans])
    return model
