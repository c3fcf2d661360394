import { Client, Refusal, check } from "./client.js";
import { Admin } from "./protocol.js";

/** Makes the topic and the group on all brokers. Returns when access points know the topic. */
export async function create({ admin, topic, group }) {
  const client = new Client();
  const stub = client.stub(admin, Admin);
  try {
    await report(`topic ${topic}`, client.call(stub, "createTopic", { name: { name: topic }, queues: 4 }));
    await report(`group ${group}`, client.call(stub, "createGroup", { name: { name: group } }));
  } finally {
    client.close();
  }
}

/** Passes over what was there before. Each broker has an outcome of its own: one that is down fails alone. */
async function report(what, created) {
  try {
    const { outcomes } = await created;
    for (const { broker, status } of outcomes) {
      try {
        check(status);
      } catch (error) {
        throw new Error(`${broker}: ${error.message}`);
      }
    }
    console.log(`${what} created on ${outcomes.length} brokers`);
  } catch (error) {
    if (!(error instanceof Refusal && error.code === "PRECONDITION_FAILED")) throw error;
    console.log(error.message);
  }
}
