import os, json, time
from pathlib import Path
def words(n):
    import random
    r=random.Random(5)
    return [{"messages":[{"role":"user","content":" ".join("".join(r.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(r.randint(3,9))) for _ in range(8))}],"max_tokens":6} for _ in range(n)]
def test_it(make_site, produce, tiny_vllm):
    site=make_site(
      round={"prompts":16,"min_new_prompts":40}, sampling={"completions":8,"max_tokens":6},
      training={"base_model":str(tiny_vllm.model),"learning_rate":2e-2,"epochs":3,"groups_per_step":4,"max_mismatch":1.0},
      gate={"prompts":30,"min_prompts":20,"temperature":1.0,"max_length_ratio":3.0,"max_truncation_increase":1.0}, serving={"replicas":[tiny_vllm.url],"base_model":"base"},
      rollout={"mode":"auto"}, scorers=[{"name":"letter","type":"python","callable":"my_scorers:early_letter"}])
    site.daemon.environment={"PYTHONPATH":"/work/main:/tmp/s/e2e"}
    site.start(gateway=True)
    produce(site.config["kafka"]["topic"], words(200))
    t=time.time()
    seen=None
    while time.time()-t<150:
        s=site.status(); k=(s["round"] and (s["round"]["id"],s["round"]["phase"]), s["rollout"] and s["rollout"]["phase"], (s["last_round"] or {}).get("reason"))
        if k!=seen: print(round(time.time()-t,1),k, s["buffer"], s["next_round"], flush=True); seen=k
        if s["rollout"] and s["rollout"]["phase"]=="settled": break
        if s["last_round"] and s["last_round"]["id"]>=3: break
        time.sleep(.2)
    for f in sorted((site.root/"data"/"rounds").glob("*/report.json")): print(f.read_text())
    print(site.run("status").stdout); print(site.run("round","list").stdout); print(site.run("adapters").stdout); print(site.run("rollout","undo","--reason","x").stdout, site.run("audit","show").stdout)
    print(site.daemon.tail())
