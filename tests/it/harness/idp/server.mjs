// An identity provider for tests: `node server.mjs PORT KEYS`. The line on standard output says that it listens,
// and is its issuer. KEYS is a file: signing keys are read from it, or made and written to it where there is none.
import { createServer } from 'node:http';
import { createPrivateKey, generateKeyPairSync, randomUUID } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import Provider from 'oidc-provider';

const [port, keysFile] = process.argv.slice(2);
const secret = 'secret-of-the-tests-0123456789abcdef';

// What each client's access tokens are: `format`, and the algorithm of a JWT.
const tokens = {
  orders: { format: 'jwt', alg: 'RS256' },
  'orders-ps': { format: 'jwt', alg: 'PS256' },
  'orders-es': { format: 'jwt', alg: 'ES256' },
  'orders-ed': { format: 'jwt', alg: 'EdDSA' },
  opaque: { format: 'opaque' },
};

// A private key, read again from its encoding: Node.js can hang for ever where a key that it has just made is exported
// as JWK. The export holds the key's lock while it allocates, and the garbage collector then ends the job that made the
// key, which wants the same lock.
function makeKey(kind, options) {
  const format = { type: 'pkcs8', format: 'der' };
  const { privateKey } = generateKeyPairSync(kind, {
    ...options, privateKeyEncoding: format, publicKeyEncoding: { type: 'spki', format: 'der' },
  });
  return createPrivateKey({ key: privateKey, ...format });
}

function makeKeys() {
  const made = [
    ['RS256', makeKey('rsa', { modulusLength: 2048 })],
    ['PS256', makeKey('rsa', { modulusLength: 2048 })],
    ['ES256', makeKey('ec', { namedCurve: 'P-256' })],
    ['EdDSA', makeKey('ed25519')],
  ];
  return made.map(([alg, key]) => ({
    ...key.export({ format: 'jwk' }), alg, use: 'sig', kid: `${alg}-${randomUUID()}`,
  }));
}

function keys() {
  if (!existsSync(keysFile)) writeFileSync(keysFile, JSON.stringify(makeKeys()), { mode: 0o600 });
  return JSON.parse(readFileSync(keysFile, 'utf8'));
}

const resource = 'https://orders.test';
const client = (client_id) => ({
  client_id, client_secret: secret, grant_types: ['client_credentials'], redirect_uris: [], response_types: [],
});

const configuration = {
  clients: [...Object.keys(tokens), 'gateway'].map(client),
  scopes: ['orders.read', 'orders.write', 'orders.admin'],
  jwks: { keys: keys() },
  enabledJWA: { idTokenSigningAlgValues: ['RS256', 'PS256', 'ES256', 'EdDSA'] },
  ttl: { ClientCredentials: 600 },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true, allowedPolicy: () => true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => resource,
      useGrantedResource: () => true,
      getResourceServerInfo(_ctx, _resource, { clientId }) {
        const { format, alg } = tokens[clientId] ?? tokens.orders;
        return {
          audience: 'orders-api',
          scope: 'orders.read orders.write orders.admin',
          accessTokenFormat: format,
          accessTokenTTL: 600,
          ...(alg && { jwt: { sign: { alg } } }),
        };
      },
    },
  },
};

// How often each path was asked for, at /asked; that question is not counted.
const asked = {};
let answer;
const server = createServer((req, res) => {
  const path = req.url.split('?')[0];
  if (path === '/asked') return res.setHeader('content-type', 'application/json').end(JSON.stringify(asked));
  asked[path] = (asked[path] ?? 0) + 1;
  return answer(req, res);
});
server.listen(Number(port), '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  answer = new Provider(issuer, configuration).callback();
  console.log(issuer);
});
