// One call of the simulator, over kept connections; what it answers is its own log's business.
const http = require('http');

const agent = new http.Agent({ keepAlive: true, maxSockets: 64 });
const target = '/v1/fares?origin=ICN&destination=NRT&depart=2027-01-05&return=2027-01-09';

module.exports = () =>
  new Promise((resolve) => {
    const request = http.get(process.env.URL + target, { agent, headers: { 'x-api-key': 'a' } }, (answer) => {
      answer.resume();
      answer.on('end', resolve);
    });
    request.on('error', resolve);
  });
