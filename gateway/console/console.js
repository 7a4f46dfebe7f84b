// The console: a client like any other. It subscribes with the browser's own EventSource, so what it shows is what a
// page of the user's would see, and it says no more about the connection than such a page can know.
//
// What always holds: data from the network gets into the page as text only; no more than MAX_ROWS events are kept.

const MAX_ROWS = 500;
const COUNTS_EVERY_MS = 3000;
const USUAL_TYPES = ['create', 'update', 'delete'];

// Types that the gateway itself sends. The first is what an event without a type has.
const BUILT_IN_TYPES = ['message', 'gap', 'connected', 'heartbeat'];

const $ = (id) => document.getElementById(id);
const words = (text) => [...new Set(text.split(/[\s,]+/).filter(Boolean))];
const seconds = (ms) => `${(ms / 1000).toFixed(ms < 9950 ? 1 : 0)} s`;
const set = (id, text) => {
  // Writing the same text again would make a screen reader say it again.
  if ($(id).textContent !== text) $(id).textContent = text;
};

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function make(tag, className, text) {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

// ---- What the gateway answers ----

// A refusal in words: problem+json if it is that, the bare status if not.
async function problem(response) {
  const body = parsed(await response.text().catch(() => '')) ?? {};
  const title = body.title ?? (response.statusText || 'refused');
  return { title: `${response.status} ${title}`, detail: body.detail ?? '' };
}

// ---- The stream ----

const stream = {
  source: null,
  path: '',
  listening: new Set(),
  events: 0,
  reconnects: 0,
  wasOpen: false,
  heardAt: 0, // when anything last came that a page can see
  failedAt: 0, // when the browser last began to wait before another attempt
  retryMs: undefined, // the wait that the server asked for; a page cannot see `retry:`, so `connected` repeats it
};

function eventsPath() {
  const query = new URLSearchParams();
  for (const channel of words($('channels').value)) query.append('channel', channel);
  if ($('since').value.trim()) query.set('since', $('since').value.trim());
  return query;
}

function subscribe() {
  const channels = words($('channels').value);
  disconnect();
  if (channels.length === 0) return show('idle', 'not connected', 'Name at least one channel.');
  const query = eventsPath();
  for (const [key, value] of [['envelope', '1'], ['hello', '1'], ['heartbeat', 'event']]) query.set(key, value);
  const source = new EventSource(`/events?${query}`);
  Object.assign(stream, {
    source, path: `/events?${query}`, listening: new Set(), events: 0, reconnects: 0, wasOpen: false,
    heardAt: 0, failedAt: 0, retryMs: undefined,
  });
  for (const fact of ['id', 'connection', 'retry', 'heard']) set(`fact-${fact}`, '–');

  // An event may be of a type called `open` or `error`, and then comes the same way; only it is a MessageEvent.
  source.onopen = (event) => {
    if (event instanceof MessageEvent) return received(event);
    if (stream.wasOpen) stream.reconnects += 1;
    stream.wasOpen = true;
    stream.heardAt = Date.now();
    show('open', 'open');
  };
  source.onerror = (event) => {
    if (event instanceof MessageEvent) return received(event);
    if (source !== stream.source) return;
    if (source.readyState === EventSource.CONNECTING) {
      stream.failedAt = Date.now();
      show('reconnecting', 'reconnecting');
    } else {
      stream.source = null;
      show('closed', 'closed', 'finding out why …');
      whyClosed(stream.path);
    }
  };
  listen();
  show('connecting', 'connecting');
  remember();
  if (!$('to').value || $('to').dataset.follows) {
    $('to').value = channels[0];
    $('to').dataset.follows = 'yes';
  }
}

function disconnect() {
  if (!stream.source) return;
  stream.source.close();
  stream.source = null;
  show('idle', 'not connected');
}

// Listens for the types that are asked for and not listened for yet. Types can be added while a stream is open.
function listen() {
  if (!stream.source) return;
  for (const type of [...BUILT_IN_TYPES, ...words($('types').value)]) {
    if (stream.listening.has(type) || type === 'open' || type === 'error') continue; // these are, in any case
    stream.listening.add(type);
    stream.source.addEventListener(type, received);
  }
}

function received(event) {
  if (event.currentTarget !== stream.source) return;
  stream.heardAt = Date.now();
  if (event.lastEventId) set('fact-id', event.lastEventId);
  if (event.type === 'heartbeat') return;

  const body = parsed(event.data);
  const row = { time: new Date(), type: event.type, id: event.lastEventId, kind: 'event', channel: '', data: event.data };
  if (event.type === 'connected') {
    row.kind = 'system';
    if (typeof body?.retry === 'number') stream.retryMs = body.retry;
    if (body?.id !== undefined) set('fact-connection', String(body.id));
  } else if (event.type === 'gap' && body?.reason !== undefined) {
    row.kind = 'gap';
    row.channel = String(body.channel ?? '');
  } else {
    stream.events += 1;
    if (body !== null && typeof body === 'object' && 'data' in body) {
      row.channel = String(body.channel ?? '');
      row.data = typeof body.data === 'string' ? body.data : JSON.stringify(body.data);
    }
  }
  rows.add(row);
}

// An EventSource does not tell why it gave up. The same request, asked once more, does.
async function whyClosed(path) {
  const asking = new AbortController();
  const timer = setTimeout(() => asking.abort(), 5000);
  let why;
  try {
    const response = await fetch(path, { headers: { Accept: 'text/event-stream' }, signal: asking.signal, cache: 'no-store' });
    if (response.ok) {
      why = 'The browser gave up, but the gateway would serve this request now. Subscribe again.';
    } else {
      const { title, detail } = await problem(response);
      why = detail ? `${title}: ${detail}` : title;
    }
  } catch {
    why = 'The gateway does not answer. Subscribe again when it is back.';
  }
  clearTimeout(timer);
  asking.abort();
  if (!stream.source && stream.path === path && $('state').dataset.state === 'closed') set('state-why', why);
}

function show(state, word, why = '') {
  $('state').dataset.state = state;
  set('state-word', word);
  set('state-why', why);
  $('disconnect').hidden = stream.source === null;
  tick();
  rows.count();
}

// What changes with time alone.
function tick() {
  const state = $('state').dataset.state;
  const now = Date.now();
  set('fact-events', stream.events.toLocaleString('en'));
  set('fact-reconnects', String(stream.reconnects));
  set('fact-retry', stream.retryMs === undefined ? '–' : seconds(stream.retryMs));
  if (stream.heardAt) set('fact-heard', `${Math.max(0, Math.round((now - stream.heardAt) / 1000))} s ago`);
  let wait = '';
  if (state === 'reconnecting') {
    const waited = now - stream.failedAt;
    const left = stream.retryMs - waited;
    if (stream.retryMs === undefined) wait = `when the browser chooses, waiting for ${Math.round(waited / 1000)} s`;
    else if (left > 0) wait = `in ${seconds(left)}`;
    else wait = 'now …';
  }
  set('state-wait', wait);
}

// ---- The list of events ----

const rows = {
  waiting: [], // not in the page yet, oldest first
  shown: [], // in the page, newest first
  paused: false,
  scheduled: false,

  add(row) {
    this.waiting.push(row);
    // A hidden tab draws nothing for hours: what would be dropped anyway is not kept until then.
    if (this.waiting.length > MAX_ROWS) this.waiting.shift();
    this.schedule();
  },

  // One drawing per frame, however many events come.
  schedule() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      this.draw();
    });
  },

  draw() {
    if (!this.paused && this.waiting.length > 0) {
      const fresh = this.waiting.splice(0).reverse().map(drawn);
      $('events').prepend(...fresh.map((row) => row.element));
      this.shown.unshift(...fresh);
      for (const old of this.shown.splice(MAX_ROWS)) old.element.remove();
      this.filter(fresh);
    }
    this.count();
  },

  filter(which = this.shown) {
    const wanted = $('filter').value.trim().toLowerCase();
    for (const row of which) row.element.hidden = !row.text.includes(wanted);
  },

  count() {
    const visible = this.shown.filter((row) => !row.element.hidden).length;
    set('shown', visible < this.shown.length ? `${visible} of ${this.shown.length}` : `${visible} kept`);
    set('pause', this.paused ? `Resume${this.waiting.length ? ` (${this.waiting.length})` : ''}` : 'Pause');
    $('pause').setAttribute('aria-pressed', String(this.paused));
    let empty = '';
    if (this.shown.length === 0) empty = stream.source ? 'No events yet. Publish one.' : 'Subscribe to a channel to see its events.';
    else if (visible === 0) empty = 'No event matches the filter.';
    set('empty', empty);
  },

  clear() {
    this.waiting.length = 0;
    this.shown.length = 0;
    $('events').replaceChildren();
    this.count();
  },
};

function drawn(row) {
  const element = make('li', 'event', '');
  element.dataset.kind = row.kind;
  const clock = row.time.toTimeString().slice(0, 8);
  const time = make('time', 'time', `${clock}.${String(row.time.getMilliseconds()).padStart(3, '0')}`);
  time.dateTime = row.time.toISOString();
  const data = row.data === '' ? make('pre', 'data empty-data', 'empty') : make('pre', 'data', row.data);
  const id = make('span', 'id', row.id);
  id.title = row.id; // the id of a stream of many channels is long, and cut short in the list
  element.append(time, make('span', 'channel', row.channel), make('span', 'type', row.type), data, id);
  return { element, text: [row.channel, row.type, row.data, row.id].join('\n').toLowerCase() };
}

// ---- Publishing ----

function publishPath() {
  const type = $('type').value.trim();
  const query = type ? `?${new URLSearchParams({ event: type })}` : '';
  return `/channels/${encodeURIComponent($('to').value.trim())}/events${query}`;
}

async function publish() {
  const type = $('type').value.trim();
  if (type && !BUILT_IN_TYPES.includes(type) && !words($('types').value).includes(type)) {
    // Before it is sent, or its own event would pass unheard.
    $('types').value = [...words($('types').value), type].join(', ');
    typesChanged();
  }
  const button = $('publish').querySelector('[type=submit]');
  button.disabled = true;
  try {
    const response = await fetch(publishPath(), {
      method: 'POST', body: $('data').value, headers: { 'Content-Type': 'text/plain; charset=utf-8' },
    });
    if (!response.ok) {
      const { title, detail } = await problem(response);
      answer('bad', title, detail);
    } else {
      const { channel, position } = parsed(await response.text()) ?? {};
      const where = channel ? `Published to ${channel}` : 'Published';
      answer('good', where, position ? `Position ${position}` : 'No history, so no position.');
    }
  } catch {
    answer('bad', 'No answer', 'The gateway cannot be reached. Whether the event was taken is not known.');
  }
  button.disabled = false;
}

function answer(outcome, title, detail) {
  $('answer').dataset.outcome = outcome;
  $('answer').replaceChildren(make('div', 'title', title), make('div', 'detail', detail));
}

// ---- Copying commands ----

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

async function copy(button, command) {
  button.parentElement.parentElement.querySelector('.command')?.remove();
  try {
    await navigator.clipboard.writeText(command);
    const label = button.textContent;
    button.textContent = 'Copied';
    button.disabled = true;
    setTimeout(() => {
      button.textContent = label;
      button.disabled = false;
    }, 1200);
  } catch {
    // Without TLS a browser may refuse the clipboard: show the command instead, and select it.
    const shown = make('pre', 'command', command);
    button.parentElement.after(shown);
    getSelection().selectAllChildren(shown);
  }
}

// ---- Counts ----

async function counts() {
  if (document.hidden) return;
  // What the cluster has is null while the broker is away.
  const plural = (count, noun) => `${count?.toLocaleString('en') ?? '–'} ${noun}${count === 1 ? '' : 's'}`;
  try {
    const response = await fetch('/connections', { cache: 'no-store', signal: AbortSignal.timeout(COUNTS_EVERY_MS) });
    if (!response.ok) throw new Error((await problem(response)).title);
    const { replica, replicas, connections, channels } = await response.json();
    set('counts', `${plural(connections.cluster, 'connection')} on ${plural(replicas, 'replica')} · `
      + `this one, ${replica}: ${plural(connections.replica, 'connection')}, ${plural(channels.replica, 'channel')}`);
  } catch (error) {
    set('counts', error instanceof TypeError || error.name === 'TimeoutError' ? 'The gateway does not answer.' : `No counts: ${error.message}`);
  }
}

// ---- The page's own state: the fragment is the link to share, the types are the reader's ----

function remember() {
  const state = new URLSearchParams({ channels: words($('channels').value).join(',') });
  if ($('since').value.trim()) state.set('since', $('since').value.trim());
  // Commas and colons are legal in a fragment, and a link is easier to read with them.
  history.replaceState(null, '', `#${state}`.replaceAll('%2C', ',').replaceAll('%3A', ':'));
}

function recall() {
  const state = new URLSearchParams(location.hash.slice(1));
  $('channels').value = words(state.get('channels') ?? '').join(', ');
  $('since').value = state.get('since') ?? '';
  if ($('since').value) $('advanced').open = true;
  if ($('channels').value) subscribe();
}

function typesChanged() {
  const types = words($('types').value);
  try {
    localStorage.setItem('sluice.types', types.join(','));
  } catch { /* A browser may refuse to store; the types then last as long as the page. */ }
  $('known-types').replaceChildren(...types.map((type) => Object.assign(document.createElement('option'), { value: type })));
  listen();
}

function recallTypes() {
  let stored = null;
  try {
    stored = localStorage.getItem('sluice.types');
  } catch { /* As above. */ }
  $('types').value = (stored === null ? USUAL_TYPES : words(stored)).join(', ');
  typesChanged();
}

// ---- Wiring ----

$('subscribe').addEventListener('submit', (event) => {
  event.preventDefault();
  subscribe();
});
$('disconnect').addEventListener('click', () => {
  disconnect();
  $('connect').focus();
});
$('types').addEventListener('change', typesChanged);
$('to').addEventListener('input', () => delete $('to').dataset.follows);
$('publish').addEventListener('submit', (event) => {
  event.preventDefault();
  publish();
});
$('data').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) $('publish').requestSubmit();
});
$('filter').addEventListener('input', () => {
  rows.filter();
  rows.count();
});
$('pause').addEventListener('click', () => {
  rows.paused = !rows.paused;
  rows.draw();
});
$('clear').addEventListener('click', () => rows.clear());
$('curl-subscribe').addEventListener('click', (event) => {
  copy(event.currentTarget, `curl -N ${quoted(`${location.origin}/events?${eventsPath()}`)}`);
});
$('curl-publish').addEventListener('click', (event) => {
  copy(event.currentTarget, `curl --data-raw ${quoted($('data').value)} -H 'Content-Type: text/plain' ${quoted(location.origin + publishPath())}`);
});
// A command shown for copying says what the form said then.
for (const form of [$('subscribe'), $('publish')]) {
  form.addEventListener('input', () => form.querySelector('.command')?.remove());
}
addEventListener('hashchange', recall);
document.addEventListener('visibilitychange', counts);

$('data').value = '{"hello": "world"}';
$('to').value = 'demo';
$('to').dataset.follows = 'yes';
recallTypes();
recall();
if (!$('channels').value) $('channels').value = 'demo';
rows.count();
counts();
setInterval(counts, COUNTS_EVERY_MS);
setInterval(tick, 250);
