// An MCP server over stdio all of whose words are hostile.

import { createInterface } from "node:readline";

const evil = (where) => `<img src=x onerror="hacked('${where}')"><script>hacked('${where}')</script>\u202e\u200b'"&lt;`;
const tools = [
  {
    name: "do_<b onmouseover=hacked(1)>",
    title: evil("title"),
    description: evil("description"),
    inputSchema: { type: "object" },
  },
];
for await (const line of createInterface({ input: process.stdin })) {
  const { id, method } = JSON.parse(line);
  if (id === undefined) continue;
  const result = {
    initialize: { protocolVersion: "2025-11-25", capabilities: { tools: {} }, serverInfo: { name: evil("server"), version: "1" } },
    "tools/list": { tools },
    "tools/call": { content: [{ type: "text", text: evil("result") }], isError: true },
  }[method];
  const answer = result ? { result } : { error: { code: -32601, message: evil("error") } };
  process.stdout.write(JSON.stringify({ jsonrpc: "2.0", id, ...answer }) + "\n");
}
