"""BiFusion: bidirectional attention between text and image at one stage of the two encoders."""

from __future__ import annotations

from einops import rearrange
from monai.networks.blocks import MLPBlock
from torch import Tensor, nn

from scripts.networks.attention import Attention
from scripts.networks.token_pooling import pool_tokens

TOKEN_BUDGET = 24**3


class BiFusion(nn.Module):
    """Fusion block of one stage: text and image attend to themselves and to each other (eq. 2).

    Eq. 2, with T_n the text tokens and V_n the vision tokens of stage n::

        T'_n = SA(LN(T_n))                    V'_n = SA(LN(V_n))
        T^_n = T'_n + MLP_T(CA(T'_n, V'_n))   V^_n = V'_n + MLP_V(CA(V'_n, T^_n))

    SA self-attention, CA(queries, keys and values) cross-attention, LN LayerNorm. T_n is projected to the
    channels of V_n for the block and back to its own width after it.

    Deviations:
        - A residual around both self-attentions, without which the block could not pass its input on; it can be
          left out, and then the block changes its input from the start.
        - LayerNorm also before the cross-attentions (pre-norm throughout), and the text path has a
          residual at its own width around the two projections.
        - The last layer of every path into V and back into T starts at zero: at initialisation the block
          hands on both inputs unchanged, so that pretrained weights of either encoder stay useful.
        - Where V_n has more tokens than ``token_budget``, keys and values of SA on V_n are averages of
          neighbouring tokens, as many as the budget allows. Queries are never pooled, so that each token keeps
          an answer of its own, and neither is CA, whose cost is linear in the number of vision tokens.

    Args:
        vision_channels: C_n.
        text_channels: D.
        num_heads: heads of all four attentions; must divide C_n.
        mlp_ratio: hidden width of the MLPs, in multiples of C_n.
        dropout: on attention weights and in the MLPs, in training.
        vision_self_attention: False leaves out SA on V_n, the block's only cost that is quadratic in
            the number of vision tokens.
        self_attention_residual: False leaves out the residuals around the self-attentions, as eq. 2 is printed.
        token_budget: to how many vision tokens a vision token attends at most; None for all of them. The
            default is the 24^3 of Swin UNETR's first stage at 96^3, which is thus exact.
        returns_text: False where nobody reads the fused text after this block: its last layer is left out, and the
            text is returned as it came.

    Raises:
        ValueError: ``num_heads`` does not divide C_n, or ``token_budget`` is not positive.

    Source:
        BiPVL-Seg, section 3.2, eq. 2.
    """

    def __init__(
        self,
        vision_channels: int,
        text_channels: int,
        *,
        num_heads: int,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        vision_self_attention: bool = True,
        self_attention_residual: bool = True,
        token_budget: int | None = TOKEN_BUDGET,
        returns_text: bool = True,
    ) -> None:
        super().__init__()
        if token_budget is not None and token_budget < 1:
            raise ValueError(
                f"`token_budget` must be a positive number of tokens, or null for no limit; found {token_budget}."
            )
        channels = vision_channels
        self.token_budget = token_budget
        self.self_attention_residual = self_attention_residual
        self.text_in = nn.Linear(text_channels, channels)
        self.text_norm = nn.LayerNorm(channels)
        self.text_self_attention = Attention(channels, num_heads, dropout)
        self.text_cross_norm = nn.LayerNorm(channels)
        self.text_cross_attention = Attention(channels, num_heads, dropout)
        self.text_mlp = MLPBlock(channels, int(mlp_ratio * channels), dropout)
        self.text_fused_norm = nn.LayerNorm(channels)
        self.text_out = _starts_at_zero(nn.Linear(channels, text_channels)) if returns_text else None

        self.vision_self_attention: Attention | None = None
        if vision_self_attention:
            self.vision_norm = nn.LayerNorm(channels)
            self.vision_self_attention = Attention(channels, num_heads, dropout)
            if self_attention_residual:
                _starts_at_zero(self.vision_self_attention.output)
        self.vision_cross_norm = nn.LayerNorm(channels)
        self.vision_cross_attention = Attention(channels, num_heads, dropout)
        self.vision_mlp = MLPBlock(channels, int(mlp_ratio * channels), dropout)
        _starts_at_zero(self.vision_mlp.linear2)

    def forward(self, text: Tensor, vision: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse the text tokens and the image features of one stage.

        Args:
            text: T_n, B x M x D with M = N * K
            vision: V_n, B x C_n x h x w x d; its tokens are the S = h * w * d cells

        Returns:
            the fused T^_n (B x M x D) and V^_n (B x C_n x h x w x d)
        """
        t = self.text_in(text)
        normed = self.text_norm(t)
        t = self._past(t, self.text_self_attention(normed, normed))

        grid = vision.shape[2:]
        v = rearrange(vision, "b c h w d -> b (h w d) c")
        if self.vision_self_attention is not None:
            normed = self.vision_norm(v)
            attended = self.vision_self_attention(normed, pool_tokens(normed, grid, self.token_budget))
            v = self._past(v, attended)

        v_normed = self.vision_cross_norm(v)
        t = t + self.text_mlp(self.text_cross_attention(self.text_cross_norm(t), v_normed))
        t_fused = self.text_fused_norm(t)
        v = v + self.vision_mlp(self.vision_cross_attention(v_normed, t_fused))
        height, width, depth = grid
        fused = text if self.text_out is None else text + self.text_out(t_fused)
        return fused, rearrange(v, "b (h w d) c -> b c h w d", h=height, w=width, d=depth)

    def _past(self, tokens: Tensor, attended: Tensor) -> Tensor:
        return tokens + attended if self.self_attention_residual else attended


def _starts_at_zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
