"""Train a network on digits, and measure after every epoch what it has learnt from low and from high frequencies."""

import sys

from freqrobust import train


def main(out: str) -> None:
    run = train(
        data="digits",
        limit=700,
        epochs=6,
        augment=["none"],
        probe=["lfc:radius=2", "hfc:radius=2", "pgd:eps=0.05,steps=5@every=3"],
        probe_samples=200,
        out=out,
    )
    print("accuracy on images that were not trained on")
    for epoch in run.record.epochs:
        shares = [
            f"{probe.label} {probe.held_out.accuracy:.0%}" for probe in epoch.probes if probe.held_out is not None
        ]
        print(f"epoch {epoch.epoch}: {', '.join(shares)}")
    print(f"best epoch by {run.record.best_probe}: {run.record.best_epoch}; its network: {run.best}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/probes")
