from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from scripts.networks.baselines.query_blocks import AttentionBlock, HardGrouping, class_roles


class TestHardGrouping:
    @pytest.fixture
    def block(self):
        torch.manual_seed(0)
        return HardGrouping(4).double().eval()

    def test_equals_a_loop_over_tokens(self, block):
        queries, tokens = torch.randn(1, 3, 4).double(), torch.randn(1, 7, 4).double()
        sums, counts = torch.zeros(3, 4).double(), [0, 0, 0]
        for token in tokens[0]:
            scores = [block.query(query) @ block.key(token) for query in queries[0]]
            winner = max(range(3), key=lambda n: scores[n])
            sums[winner] += block.value(token)
            counts[winner] += 1
        means = torch.stack([total / (count + 1) for total, count in zip(sums, counts, strict=True)])
        torch.testing.assert_close(block(queries, tokens)[0], queries[0] + block.project(means))

    def test_query_without_tokens_gets_the_bias_alone(self, block):
        queries, tokens = torch.randn(1, 5, 4).double(), torch.randn(1, 1, 4).double()
        added = (block(queries, tokens) - queries)[0]
        alone = [torch.allclose(row, block.project.bias) for row in added]
        assert sum(alone) == 4

    def test_training_draws_and_has_a_gradient(self, block):
        queries, tokens = torch.randn(1, 3, 4).double(), torch.randn(1, 20, 4).double()
        block.train()
        one, two = block(queries, tokens), block(queries, tokens)
        assert not torch.allclose(one, two)
        one.sum().backward()
        assert all(p.grad is not None for p in block.parameters())


def test_attention_block_equals_a_plain_one():
    torch.manual_seed(0)
    block = AttentionBlock(8).double()
    queries, tokens = torch.randn(1, 2, 8).double(), torch.randn(1, 3, 8).double()
    blocked = torch.tensor([[False, True, False], [False, False, False]])
    wq, wk, wv = block.attention.in_proj_weight.chunk(3)
    bq, bk, bv = block.attention.in_proj_bias.chunk(3)
    q, k, v = queries[0] @ wq.T + bq, tokens[0] @ wk.T + bk, tokens[0] @ wv.T + bv
    scores = torch.stack([q[:, h : h + 1] @ k[:, h : h + 1].T for h in range(8)])  # heads of one channel
    scores = scores.masked_fill(blocked, float("-inf")).softmax(-1)
    attended = torch.cat([scores[h] @ v[:, h : h + 1] for h in range(8)], dim=1)
    x = queries[0] + block.attention.out_proj(attended)
    inner = block.mlp.mlp
    x = x + inner.linear2(F.gelu(inner.linear1(block.mlp.norm(x))))
    torch.testing.assert_close(block(queries, tokens, blocked)[0], block.norm(x))


class TestRoles:
    def test_follow_the_codes_and_the_hosts(self, tumours):
        roles = class_roles(tumours, softmax=True, hosts={"Liver tumour": ["liver"]})
        assert (roles.organs, roles.lesions, roles.hosts) == ((0, 1, 2, 3), (4,), {4: (3,)})
        assert roles.classes == [1, 2, 3, 4]
        related = roles.related()
        assert related.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]

    def test_without_background_count_from_0(self, tumours):
        roles = class_roles(tumours, softmax=False)
        assert (roles.organs, roles.lesions) == ((0, 1, 2), (3,))

    def test_hosts_mark_a_lesion(self, table):
        assert class_roles(table, True, {"liver": []}).lesions == (3,)

    def test_unknown_class_raises(self, table):
        with pytest.raises(ValueError, match="no class 'lever'"):
            class_roles(table, True, {"lever": ["liver"]})
