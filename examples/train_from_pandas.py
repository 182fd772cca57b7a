"""Train LoopCTR on a pandas DataFrame: one row per impression, histories as lists, oldest first."""

import numpy as np
import pandas as pd

import loopctr_tf as lc

# A made-up log: users click on the topic they clicked on before.
rng = np.random.default_rng(1)
rows = []
for user in range(200):
    taste, history = rng.integers(8), []
    for _ in range(10):
        topic = taste if rng.random() < 0.5 else rng.integers(8)
        seen = {"user": f"u{user}", "topic": f"t{topic}", "hour": float(rng.integers(24))}
        rows.append({**seen, "clicked_topics": list(history), "click": int(topic == taste)})
        history += [f"t{topic}"] if topic == taste else []
frame = pd.DataFrame(rows)

topic = lc.Feature("topic", "categorical", side="item", table="topic")
hour = lc.Feature("hour", "numeric", side="context", mean=11.5, std=6.9)
clicked = lc.Feature("clicked_topics", "categorical", table="topic")
schema = lc.Schema(
    label="click",
    group="user",
    tables=[lc.Table("topic", vocabulary=[f"t{i}" for i in range(8)])],
    features=[topic, hour],
    sequences=[lc.Sequence("clicks", [clicked], max_length=10)],
)
dataset = lc.read_dataset(frame, schema, batch_size=100, shuffle=True)
model = lc.LoopCTR(schema, lc.LoopCTRConfig(dim=16, heads=2, ffn_dim=32, loops=2))
model.compile(lc.optimizers.adamw(3e-3))
history = model.fit(dataset, epochs=5, verbose=2).history
print("training AUC by depth:", [round(history[f"loop_{depth}_auc"][-1], 3) for depth in range(3)])
