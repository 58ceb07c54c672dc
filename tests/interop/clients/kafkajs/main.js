// kafkajs: admin, produce (none and gzip), consume in a group, commit, go on from the commit.
const { Kafka, CompressionTypes, logLevel } = require('kafkajs');
const assert = require('assert');
const [boot, topic] = process.argv.slice(2);
const N = 500;

async function consume(kafka, n) {
  const c = kafka.consumer({ groupId: topic + '-g', sessionTimeout: 30000, heartbeatInterval: 500 });
  const got = new Map();
  await c.connect();
  await c.subscribe({ topics: [topic], fromBeginning: true });
  await new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`read ${got.size} of ${n}`)), 120000);
    c.run({
      autoCommit: false,
      eachMessage: async ({ partition, message }) => {
        if (got.size >= n) return;
        got.set(message.key.toString(), message.value.toString());
        await c.commitOffsets([{ topic, partition, offset: (BigInt(message.offset) + 1n).toString() }]);
        if (got.size === n) { clearTimeout(late); resolve(); }
      },
    }).catch(reject);
  });
  await c.disconnect();
  return got;
}

(async () => {
  const kafka = new Kafka({ clientId: 'interop', brokers: [boot], logLevel: logLevel.ERROR, connectionTimeout: 30000, authenticationTimeout: 30000 });
  const admin = kafka.admin();
  await admin.connect();
  assert(await admin.createTopics({ topics: [{ topic, numPartitions: 3, replicationFactor: 1 }], timeout: 60000 }));
  const p = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
  await p.connect();
  const sent = new Map();
  for (const compression of [CompressionTypes.None, CompressionTypes.GZIP]) {
    const messages = [];
    for (let i = 0; i < N / 2; i++) {
      const key = `${compression}-${i}`;
      sent.set(key, 'value ' + i);
      messages.push({ key, value: 'value ' + i, headers: { h: 'x' } });
    }
    await p.send({ topic, messages, compression, acks: -1 });
  }
  await p.disconnect();
  const first = await consume(kafka, 200), second = await consume(kafka, N - 200);
  for (const k of first.keys()) assert(!second.has(k), `${k} was read twice`);
  assert.deepStrictEqual(new Map([...first, ...second].sort()), new Map([...sent].sort()));
  const offsets = await admin.fetchTopicOffsets(topic);
  assert.strictEqual(offsets.reduce((s, o) => s + Number(o.high), 0), N);
  const { groups } = await admin.listGroups();
  assert(groups.some((g) => g.groupId === topic + '-g'));
  const d = await admin.describeGroups([topic + '-g']);
  assert.strictEqual(d.groups[0].state, 'Empty');
  const cfg = await admin.describeConfigs({ resources: [{ type: 2, name: topic }] });
  assert(cfg.resources[0].configEntries.some((e) => e.configName === 'retention.ms'));
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '1' }] });
  await admin.deleteGroups([topic + '-g']);
  await admin.createPartitions({ topicPartitions: [{ topic, count: 5 }] });
  await admin.deleteTopics({ topics: [topic] });
  await admin.disconnect();
  console.log('ok kafkajs');
})().catch((e) => { console.error(e); process.exit(1); });
