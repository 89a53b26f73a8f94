// BullMQ: one queue, a limiter of its workers, as https://docs.bullmq.io/guide/rate-limiting says.
const { Queue, Worker } = require('bullmq');
const call = require('./call');

const redis = new URL(process.env.REDIS_URL);
const connection = { host: redis.hostname, port: Number(redis.port), maxRetriesPerRequest: null };

if (process.argv[2] === 'feed') {
  const queue = new Queue('calls', { connection });
  const one = () => ({ name: 'call', data: {}, opts: { removeOnComplete: true, removeOnFail: true } });
  (async () => {
    for (let left = Number(process.env.CALLS); left > 0; left -= 1000) {
      await queue.addBulk(Array.from({ length: Math.min(left, 1000) }, one));
    }
    process.exit(0);
  })();
} else {
  const limiter = { max: Number(process.env.RATE), duration: 1000 };
  const worker = new Worker('calls', call, { connection, concurrency: 32, limiter });
  worker.on('error', () => {});
}
