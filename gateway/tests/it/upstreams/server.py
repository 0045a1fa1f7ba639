"""An MCP server in plain Python with every vice the tests need."""
import json, os, subprocess, sys, threading, time

lock = threading.Lock()
cancelled = []


def send(message):
    with lock:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def text(id, value):
    send({"jsonrpc": "2.0", "id": id, "vendor": 1,
          "result": {"content": [{"type": "text", "text": json.dumps(value)}], "odd": 1.0}})


def call(id, name, args, meta):
    if name == "echo":
        text(id, {"args": args, "meta": meta})
    elif name == "env":
        text(id, dict(os.environ, CWD=os.getcwd()))
    elif name == "ids":
        groups = [l for l in open("/proc/self/status") if l.startswith(("Uid", "Gid", "Groups", "NoNewPrivs"))]
        text(id, {l.split(":")[0]: l.split(":")[1].split() for l in groups})
    elif name == "read":
        try:
            text(id, open(args["path"]).read())
        except OSError as error:
            text(id, "refused: " + error.strerror)
    elif name == "kill":
        try:
            os.kill(args["pid"], 0)
            text(id, "allowed")
        except OSError as error:
            text(id, "refused: " + error.strerror)
    elif name == "progress":
        for n in range(3):
            send({"jsonrpc": "2.0", "method": "notifications/progress",
                  "params": {"progressToken": meta["progressToken"], "progress": n, "extra": "kept"}})
        text(id, "done")
    elif name == "cancelled":
        text(id, cancelled)
    elif name == "die":
        sys.stderr.write("dying as asked\n")
        sys.stderr.flush()
        os._exit(3)
    elif name == "garbage":
        sys.stdout.write("this is no JSON\n\n{}\n[]\n{\"id\": 99999, \"result\": {}}\n")
        text(id, "after garbage")
    elif name == "flood":
        for n in range(args["count"]):
            send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
            send({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x" * 200}})
            sys.stderr.write("noise\n" * 20)
        text(id, "after the flood")
    elif name == "long":
        text(id, "x" * args["bytes"])
    elif name == "deaf":
        text(id, "deaf")
        while True:
            time.sleep(3600)
    elif name == "escape":
        # A grandchild that leaves the session, is orphaned and ignores SIGTERM.
        code = ("import os,signal,time\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n"
                "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
                "open(os.environ['HOME'] + '/escaped', 'w').write(str(os.getpid()))\ntime.sleep(3600)")
        subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not os.path.exists(os.environ["HOME"] + "/escaped"):
            time.sleep(0.01)
        text(id, int(open(os.environ["HOME"] + "/escaped").read() or 0))
    elif name == "ping":
        send({"jsonrpc": "2.0", "id": "theirs", "method": "ping"})
        send({"jsonrpc": "2.0", "id": 5, "method": "sampling/createMessage", "params": {}})
        pings.append(id)


pings, pongs = [], []
if os.environ.get("STARTS"):
    with open(os.environ["STARTS"], "a") as starts:
        starts.write("x")
if os.environ.get("FAIL"):
    sys.stderr.write("no such database\n")
    sys.exit(4)
for line in sys.stdin:
    m = json.loads(line)
    method, id, params = m.get("method"), m.get("id"), m.get("params") or {}
    if method == "initialize":
        if os.environ.get("SLOW_START"):
            time.sleep(float(os.environ["SLOW_START"]))
        if os.environ.get("MODERN"):
            send({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no initialize"}})
            continue
        send({"jsonrpc": "2.0", "id": id, "result": {
            "protocolVersion": params["protocolVersion"], "capabilities": {"tools": {"vendor": True}},
            "serverInfo": {"name": "python", "version": "1"}, "instructions": "be kind"}})
    elif method == "server/discover":
        send({"jsonrpc": "2.0", "id": id, "result": {
            "resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {"listChanged": True}}, "ttlMs": 0, "cacheScope": "private",
            "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "python", "version": "2"}}}})
    elif method == "subscriptions/listen":
        send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": {}})
    elif method == "tools/call" and params["name"] == "never":
        pass
    elif method == "tools/call":
        call(id, params["name"], params.get("arguments", {}), params.get("_meta", {}))
    elif method == "notifications/cancelled":
        cancelled.append(params["requestId"])
    elif method is None and pings:
        pongs.append({k: m[k] for k in ("id", "result", "error") if k in m})
        if len(pongs) == 2:
            text(pings.pop(), pongs)
    elif id is not None:
        send({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "unknown", "data": {"a": 1}}})
