// Bottleneck, clustered over Redis with a least time between calls.
const Bottleneck = require('bottleneck');
const Redis = require('ioredis');
const call = require('./call');

if (process.argv[2] === 'feed') process.exit(0); // It has no queue: each process has calls of its own.

const redis = new URL(process.env.REDIS_URL);
const limiter = new Bottleneck({
  id: 'calls',
  minTime: 1000 / Number(process.env.RATE),
  maxConcurrent: 256,
  datastore: 'ioredis',
  Redis,
  clearDatastore: false,
  clientOptions: { host: redis.hostname, port: Number(redis.port) },
});
limiter.on('error', () => {});
const next = () => limiter.schedule(call).catch(() => new Promise((again) => setTimeout(again, 100))).then(next);
for (let n = 0; n < 64; n += 1) next();
