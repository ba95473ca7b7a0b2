"""What each process of an RL run sees, written down: `watched.py FOLDER`, in one process or under a launcher."""

import json
import sys
from pathlib import Path

import torch

from score.train import ranks


def main(folder: Path) -> None:
    from test_grpo import Scored
    from toy_rl import by_length, key_step, make_exam, make_trainer, micro_config
    from transformers import LlamaForCausalLM

    from score.attempts import open_tools, sandbox
    from score.engine.codec import ChatCodec
    from score.micro.language import make_tokenizer, model_config
    from score.records import Task
    from score.train.heldout import HeldOut

    class Watched(Scored):
        def roll(self, prompts):
            rolled = super().roll(prompts)
            seen["rows"].append([row["index"] for row in self.rows])
            seen["sampled"].append(rolled["completion_ids"])
            return rolled

    seen = {"rows": [], "sampled": []}
    ranks.start()
    torch.manual_seed(0)
    model = LlamaForCausalLM(model_config(hidden=32, layers=2, heads=2, intermediate=64))
    steps = [key_step(name) for name in ("Ba", "Bo", "Be")]
    mine = folder / str(ranks.number())
    mine.mkdir()
    reward = by_length if ranks.is_main() else None
    trainer = make_trainer((model, ChatCodec(make_tokenizer())), mine, steps, reward=reward, cls=Watched)
    held_out = [Task(f"h{i}", f"How many coins has {i}?", ("5",), "toy", {"metric": "exact"}) for i in range(3)]
    HeldOut.watch(trainer, make_exam(trainer.rollouts.codec, held_out), every=2)
    trainer.train()
    seen["held_out"] = [row["heldout/n"] for row in trainer.state.log_history if "heldout/n" in row]
    seen["advantages"] = [output["advantages"].tolist() for output in trainer.scored]
    config, code = micro_config(), f"x = {ranks.number()}\nprint(x)\nprint(web_search('Ba'))"
    with sandbox(config) as pool, open_tools(config, "train") as tools, pool.open(tools) as session:
        seen["sandbox"] = session.run(code).text
    seen["weights"] = float(sum(p.double().abs().sum() for p in trainer.model.parameters()))
    (folder / f"{ranks.number()}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
