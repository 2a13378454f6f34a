// Preloaded into the bindings' Node.js (infra/stacks/node.py). Their index requires the modules of all of Google's 1,850
// resources, 240 MB of source, to be read and compiled at each start; this makes it require each when it is first asked
// for. Where the index is written another way, nothing is changed, and a start takes two seconds longer.
'use strict';
const Module = require('node:module');

const INDEX = /provider-google[^]*[\\/]lib[\\/]index\.js$/;
const EAGER = /^exports\.(\w+) = __importStar\(require\(("[^"]+")\)\);$/gm;
const LAZY = `{ let loaded; Object.defineProperty(exports, "$1", {
  enumerable: true, configurable: true, get: () => loaded ??= __importStar(require($2)) }); }`;

const compile = Module.prototype._compile;
Module.prototype._compile = function (source, filename, ...more) {
  return compile.call(this, INDEX.test(filename) ? source.replace(EAGER, LAZY) : source, filename, ...more);
};
