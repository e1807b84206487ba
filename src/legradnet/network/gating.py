"""Gates: fuse the tokens of N backbones into one feature, and say how much each backbone weighed."""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import dropout

from legradnet.errors import UserError
from legradnet.settings import Settings, Share

_NAME = "set by `gating=mha`, `mlp`, `concat`, `mean`"
_DROPOUT = "dropout of attention (mha), hidden layer (mlp), tokens (concat)"


class _GateSettings(Settings):
    """What every gate says of itself."""

    weighs: ClassVar[bool] = True  # whether it gives each backbone a weight


class MultiHeadAttentionGate(nn.Module):
    """Fuse backbone tokens with one learned query (Vaswani et al. 2017, arXiv:1706.03762).

    Args:
        num_tokens: Backbones N; not used, any number of tokens can be attended to.
        feature_dim: Width D of a token; divisible by `num_heads`.
        num_heads: Attention heads.
        dropout: Probability of dropping an attention weight in training, 0-1. The returned weights are those before
            dropout, so they always sum to 1.
    """

    def __init__(self, num_tokens: int, feature_dim: int, num_heads: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        if num_heads < 1 or feature_dim % num_heads:
            raise UserError(f"gating.num_heads={num_heads} must divide model.feature_dim={feature_dim}.")
        self.num_heads = num_heads
        self.dropout = dropout
        self.query = nn.Parameter(torch.randn(feature_dim) * feature_dim**-0.5)
        self.key = nn.Linear(feature_dim, feature_dim)
        self.value = nn.Linear(feature_dim, feature_dim)
        self.out = nn.Linear(feature_dim, feature_dim)

    def head_weights(self, tokens: Tensor) -> Tensor:
        """Attention of each head over `tokens` [B, N, D]: [B, heads, N], each row sums to 1."""
        keys = self.key(tokens).unflatten(-1, (self.num_heads, -1))  # [B, N, heads, d]
        query = self.query.view(self.num_heads, -1)
        scores = torch.einsum("bnhd,hd->bhn", keys, query.to(keys.dtype)) * query.shape[-1] ** -0.5
        return scores.float().softmax(dim=-1)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse `tokens` [B, N, D] into ([B, D], weights [B, N], each row sums to 1)."""
        weights = self.head_weights(tokens)
        values = self.value(tokens).unflatten(-1, (self.num_heads, -1))
        mixed = torch.einsum("bhn,bnhd->bhd", dropout(weights, self.dropout, self.training).to(values.dtype), values)
        return self.out(mixed.flatten(1)), weights.mean(dim=1)


class MhaSettings(_GateSettings):
    """Config group `gating=mha`."""

    name: Literal["mha"] = Field(default="mha", description=_NAME)
    num_heads: int = Field(default=4, ge=1, description="attention heads (mha); divides model.feature_dim")
    dropout: Share = Field(default=0.1, description=_DROPOUT)

    def build(self, num_tokens: int, feature_dim: int) -> MultiHeadAttentionGate:
        """The gate over `num_tokens` backbones, whose tokens are `feature_dim` wide."""
        return MultiHeadAttentionGate(num_tokens, feature_dim, self.num_heads, self.dropout)


class MlpGate(nn.Module):
    """Weigh backbones by a softmax over an MLP of all their features (mixture of experts, Jacobs et al. 1991).

    Args:
        num_tokens: Backbones N.
        feature_dim: Width D of a token.
        hidden_dim: Width of the hidden layer.
        dropout: Dropout after the hidden layer, 0-1.
    """

    def __init__(self, num_tokens: int, feature_dim: int, hidden_dim: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        hidden = nn.Linear(num_tokens * feature_dim, hidden_dim)
        self.scores = nn.Sequential(hidden, nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden_dim, num_tokens))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse `tokens` [B, N, D] into ([B, D], weights [B, N], each row sums to 1)."""
        weights = self.scores(tokens.flatten(1)).float().softmax(dim=-1)
        return torch.einsum("bn,bnd->bd", weights.to(tokens.dtype), tokens), weights


class MlpSettings(_GateSettings):
    """Config group `gating=mlp`."""

    name: Literal["mlp"] = Field(default="mlp", description=_NAME)
    hidden_dim: int = Field(default=256, ge=1, description="hidden width (mlp)")
    dropout: Share = Field(default=0.1, description=_DROPOUT)

    def build(self, num_tokens: int, feature_dim: int) -> MlpGate:
        """The gate over `num_tokens` backbones, whose tokens are `feature_dim` wide."""
        return MlpGate(num_tokens, feature_dim, self.hidden_dim, self.dropout)


class ConcatGate(nn.Module):
    """Fuse by one linear layer over the concatenated tokens; there are no weights to report.

    Args:
        num_tokens: Backbones N.
        feature_dim: Width D of a token.
        dropout: Dropout on the concatenated tokens, 0-1.
    """

    def __init__(self, num_tokens: int, feature_dim: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.fuse = nn.Sequential(nn.Dropout(dropout), nn.Linear(num_tokens * feature_dim, feature_dim), nn.GELU())

    def forward(self, tokens: Tensor) -> tuple[Tensor, None]:
        """Fuse `tokens` [B, N, D] into ([B, D], None)."""
        return self.fuse(tokens.flatten(1)), None


class ConcatSettings(_GateSettings):
    """Config group `gating=concat`."""

    weighs: ClassVar[bool] = False

    name: Literal["concat"] = Field(default="concat", description=_NAME)
    dropout: Share = Field(default=0.1, description=_DROPOUT)

    def build(self, num_tokens: int, feature_dim: int) -> ConcatGate:
        """The gate over `num_tokens` backbones, whose tokens are `feature_dim` wide."""
        return ConcatGate(num_tokens, feature_dim, self.dropout)


class MeanGate(nn.Module):
    """Average the tokens: every backbone weighs 1/N. The yardstick that a learned gate has to beat."""

    def __init__(self, num_tokens: int, feature_dim: int) -> None:
        super().__init__()

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse `tokens` [B, N, D] into ([B, D], weights [B, N], each 1/N)."""
        return tokens.mean(dim=1), tokens.new_full(tokens.shape[:2], 1 / tokens.shape[1], dtype=torch.float32)


class MeanSettings(_GateSettings):
    """Config group `gating=mean`."""

    name: Literal["mean"] = Field(default="mean", description=_NAME)

    def build(self, num_tokens: int, feature_dim: int) -> MeanGate:
        """The gate over `num_tokens` backbones, whose tokens are `feature_dim` wide."""
        return MeanGate(num_tokens, feature_dim)


# A gate is its class, its settings, and its row here.
GatingSettings = Annotated[MhaSettings | MlpSettings | ConcatSettings | MeanSettings, Field(discriminator="name")]
