"""The 2021 notebook's training cells, their import lines changed: DALLE-pytorch's own API on today's torch, anywhere.

    python examples/dalle_pytorch_birds.py --image_folder .../images --text_folder .../text_c10 --vae_path vae.pt \
        --deepspeed --zero 3 --epochs 1
"""

import argparse
import resource
import time
from pathlib import Path

import torch
from torch.nn.utils import clip_grad_norm_
from torch.optim import Adam
from torch.utils.data import DataLoader, Subset

from tessera.compat.dalle_pytorch import DALLE, DiscreteVAE, distributed_utils
from tessera.compat.dalle_pytorch.loader import TextImageDataset
from tessera.compat.dalle_pytorch.tokenizer import HugTokenizer, SimpleTokenizer

parser = argparse.ArgumentParser()
parser.add_argument("--image_folder", required=True)
parser.add_argument("--text_folder", default=None)
parser.add_argument("--vae_path", required=True)
parser.add_argument("--dalle_path", default=None)
parser.add_argument("--output", default="dalle.pt")
parser.add_argument("--bpe_path", default=None)
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("--samples", type=int, default=0, help="pictures of the folder that are used; 0 all")
parser.add_argument("--draw_every", type=int, default=100)
parser.add_argument("--save_every", type=int, default=1000)
parser.add_argument("--stop_after", type=int, default=0, help="stop (as if killed) after this many steps")
parser.add_argument("--zero", type=int, default=3)
parser.add_argument("--dim", type=int, default=512)
parser.add_argument("--text_seq_len", type=int, default=256)
parser = distributed_utils.wrap_arg_parser(parser)
args = parser.parse_args()

BATCH_SIZE, LEARNING_RATE, GRAD_CLIP_NORM = 4, 3e-4, 0.5

tokenizer = HugTokenizer(args.bpe_path) if args.bpe_path else SimpleTokenizer()
distr_backend = distributed_utils.set_backend_from_args(args)
distr_backend.initialize()
using_deepspeed = distributed_utils.using_backend(distributed_utils.DeepSpeedBackend)
root = distr_backend.is_root_worker()

loaded = torch.load(args.dalle_path, weights_only=True) if args.dalle_path else None
vae_file = torch.load(args.vae_path, weights_only=True)
vae_params = loaded["vae_params"] if loaded else vae_file["hparams"]
vae = DiscreteVAE(**vae_params)
if not loaded:
    vae.load_state_dict(vae_file["weights"])
dalle_params = loaded["hparams"] if loaded else {
    "num_text_tokens": tokenizer.vocab_size, "text_seq_len": args.text_seq_len, "dim": args.dim, "depth": 2,
    "heads": 4, "dim_head": 64, "reversible": True, "loss_img_weight": 7, "attn_types": ("full",),
    "shift_tokens": True, "rotary_emb": True,
}  # fmt: skip
resume_epoch = loaded["epoch"] if loaded else 0

ds = TextImageDataset(
    args.image_folder, *([args.text_folder] if args.text_folder else []), text_len=dalle_params["text_seq_len"],
    image_size=vae.image_size, resize_ratio=0.75, truncate_captions=True, tokenizer=tokenizer, shuffle=True,
)  # fmt: skip
data = Subset(ds, range(min(args.samples, len(ds)))) if args.samples else ds
if root:
    print(f"{len(data)} image-text pairs found for training")
distr_backend.check_batch_size(BATCH_SIZE)
world = distr_backend.get_world_size()
sampler = (
    torch.utils.data.distributed.DistributedSampler(data, num_replicas=world, rank=distr_backend.get_rank())
    if world > 1
    else None
)
dl = DataLoader(data, batch_size=BATCH_SIZE // world, shuffle=sampler is None, drop_last=True, sampler=sampler)

dalle = DALLE(vae=vae, **dalle_params)
if not using_deepspeed:
    dalle = dalle.cuda()
if loaded:
    dalle.load_state_dict(loaded["weights"])
trainable = [p for p in dalle.parameters() if p.requires_grad]
opt = Adam(trainable, lr=LEARNING_RATE)
if loaded and loaded.get("opt_state"):
    opt.load_state_dict(loaded["opt_state"])

deepspeed_config = {
    "train_batch_size": BATCH_SIZE,
    "gradient_accumulation_steps": 1,
    "gradient_clipping": GRAD_CLIP_NORM,
    "zero_optimization": {
        "stage": args.zero,
        **({"offload_optimizer": {"device": "cpu"}} if args.zero else {}),
    },
    "fp16": {"enabled": False},
    "steps_per_print": 10**9,
}
(distr_dalle, distr_opt, _, _) = distr_backend.distribute(
    args=args, model=dalle, optimizer=opt, model_parameters=trainable, config_params=deepspeed_config
)
checkpoints = Path(args.output).with_suffix("").name + "-ds-cp"
checkpoints = str(Path(args.output).parent / checkpoints)
if using_deepspeed and not loaded and Path(checkpoints, "latest").is_file():
    _, state = distr_dalle.load_checkpoint(checkpoints)
    resume_epoch = state["epoch"]
    print(f"resumed at epoch {resume_epoch}")


def save_model(epoch):
    save_obj = {"hparams": dalle_params, "vae_params": vae_params, "epoch": epoch, "version": "1.6.6",
                "vae_class_name": vae.__class__.__name__}  # fmt: skip
    if using_deepspeed:
        distr_dalle.save_checkpoint(checkpoints, client_state=save_obj)
        if not root:
            return
        torch.save({**save_obj, "weights": "To get a working standard checkpoint, consolidate the folder."},
                   Path(checkpoints, "auxiliary.pt"))  # fmt: skip
        if args.zero >= 2:
            return
    if root:
        torch.save({**save_obj, "opt_state": opt.state_dict(), "weights": dalle.state_dict()}, args.output)


steps = 0
began = time.time()
for epoch in range(resume_epoch, args.epochs):
    for i, (text, images) in enumerate(dl):
        text, images = (t.cuda() for t in (text, images))
        loss = distr_dalle(text, images, return_loss=True)
        if using_deepspeed:
            distr_dalle.backward(loss)
            distr_dalle.step()
        else:
            loss.backward()
            clip_grad_norm_(trainable, GRAD_CLIP_NORM)
            distr_opt.step()
            distr_opt.zero_grad()
        avg_loss = distr_backend.average_all(loss)
        if i % 10 == 0 and root:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            print(
                epoch, i, f"loss - {avg_loss.item():.4f}  {time.time() - began:.0f} s  peak {peak:.2f} GB", flush=True
            )
        if i % args.draw_every == 0 and i and root:
            ids = text[0][text[0] != 0].tolist()
            image = dalle.generate_images(text[:1], filter_thres=0.9)
            print("drew", tuple(image.shape), "for:", tokenizer.decode(ids), flush=True)
        if i % args.save_every == 0 and i:
            save_model(epoch)
        steps += 1
        if steps == args.stop_after:
            print("stopped as asked", flush=True)
            raise SystemExit(0)
    save_model(epoch + 1)
print(f"finished {args.epochs} epochs, {steps} steps, {time.time() - began:.0f} s")
