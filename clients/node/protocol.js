// The protocol, read from the .proto files.

import { fileURLToPath } from "node:url";

import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const definition = loadSync(["apache/rocketmq/v2/service.proto", "kourou/admin/v1/admin.proto"], {
  includeDirs: [fileURLToPath(new URL("../../proto", import.meta.url))],
  enums: String, // the names of values; a value that is not in the .proto files comes as its number
  longs: Number, // timestamps and offsets are far below 2^53
  defaults: true, // a field that was not sent has its default value
  oneofs: true, // which field of a oneof is there: part.content === "message"
});
const packages = grpc.loadPackageDefinition(definition);

export const { MessagingService, Code } = packages.apache.rocketmq.v2;
export const { Admin } = packages.kourou.admin.v1;

/** TOPIC_NOT_FOUND -> 40402 */
export function codeNumber(name) {
  return Code.type.value.find((value) => value.name === name)?.number ?? name;
}
