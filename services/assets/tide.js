// The browser tracker: page views, marked clicks and the page's own events, sent to the collector that serves it.
// Promises: the page never sees an error of it; an event is kept in the browser until the collector has answered, and is sent
// again with the same id; with Do-Not-Track or Global Privacy Control on it stores nothing and sends nothing.
// What a page can say, and why things are as they are: docs/tracker.md. Served as tide.min.js (python -m deploy.tracker).
(() => {
  const script = document.currentScript || document.querySelector('script[src*="tide.js"]');
  const early = window.tide;
  if (!script || (early && early.ready)) return;

  const PREFIX = 'tide:';
  const EVENT = PREFIX + 'e:';
  const SESSION_MS = 6e5;
  const LINGER_MS = 250;
  const TRIED_MS = 72e6; // 20 h: well inside the window in which the pipeline knows an id again
  const MOST_KEPT = 500;
  const BATCH_CHARS = 16e3; // at most 48 KB as UTF-8: browsers take 64 KiB from a page that is left

  const guard = (work) => (...given) => {
    try {
      return work(...given);
    } catch (e) {
      // The page's own work comes first.
    }
  };

  // Storage and a plain object are used alike: memory is where things are when storage is blocked or full. Each event is
  // an item of its own, so that pages open at the same time do not write over each other.
  const memory = {};
  let store = memory;
  guard(() => {
    localStorage[PREFIX] = 1;
    delete localStorage[PREFIX];
    store = localStorage;
  })();
  const get = (name) => memory[name] || store[name];
  const put = (name, value) => {
    try {
      store[name] = value;
    } catch (e) {
      memory[name] = value;
    }
    return value;
  };
  const drop = (name) => {
    delete memory[name];
    delete store[name];
  };

  if (navigator.doNotTrack == 1 || window.doNotTrack == 1 || navigator.globalPrivacyControl) {
    Object.keys(store).forEach((name) => name.startsWith(PREFIX) && drop(name));
    window.tide = () => {};
    return;
  }

  const random = () =>
    Array.from(crypto.getRandomValues(new Uint8Array(14)), (byte) => (byte % 36).toString(36)).join('');
  const plain = (address) => address.split(/[?#]/)[0].slice(0, 2048); // queries carry tokens and addresses
  const url = new URL(script.dataset.to || 'v1/events', script.src);
  if (script.dataset.key) url.searchParams.set('key', script.dataset.key); // a beacon takes no header

  const session = (now) => {
    let [id, last] = (get(PREFIX + 's') || '').split(' ');
    if (!id || now - last > SESSION_MS) id = random();
    put(PREFIX + 's', id + ' ' + now);
    return id;
  };

  // Events of this page, and what earlier pages left: the names of their items, oldest first.
  let waiting = Object.keys(store).filter((name) => name.startsWith(EVENT)).sort();
  const leaving = new Set(); // on their way: under a request that outlives the page, or given to a beacon
  let timer, busy;
  let failures = 0;
  let notBefore = 0;
  let latest = 0;
  let most = 50;

  const later = (ms) => {
    timer = timer || setTimeout(flush, Math.max(ms, notBefore - Date.now()));
  };

  const forget = (name) => {
    drop(name);
    leaving.delete(name);
    waiting = waiting.filter((other) => other !== name);
  };

  const track = (type, fields) => {
    const now = (latest = Math.max(Date.now(), latest + 1)); // so that their order can be seen
    const anonymous = get(PREFIX + 'a') || put(PREFIX + 'a', 'a-' + random());
    const event = {
      event_id: now.toString(36) + '-' + random(),
      type,
      user_id: get(PREFIX + 'u') || anonymous,
      anonymous_id: anonymous,
      session_id: session(now),
      occurred_at: now,
      channel: 'web',
      page: plain(location.href),
      ...fields,
    };
    // An empty text is a field that the page has no value for.
    const name = EVENT + event.event_id;
    put(name, '0 ' + JSON.stringify(event, (key, value) => (value === '' || value === null ? undefined : value)));
    if (!waiting.includes(name)) waiting.push(name);
    if (waiting.length > MOST_KEPT) forget(waiting[0]);
    later(LINGER_MS);
  };

  // The oldest events that fit one request: names and texts. An item is "<ms of the first try, 0 before it> <event>".
  const pick = () => {
    const now = Date.now();
    const names = [];
    const texts = [];
    let size = 0;
    for (const name of waiting) {
      const [tried, text] = (get(name) || '').split(/ (.*)/s);
      if (!text || (+tried && now - tried > TRIED_MS)) {
        forget(name); // another page has sent it; or whether it was taken can no longer be found out by its id
      } else if (!leaving.has(name)) {
        size += text.length;
        if (names.length && (names.length === most || size > BATCH_CHARS)) break;
        put(name, (+tried || now) + ' ' + text);
        names.push(name);
        texts.push(text.slice(0, -1) + ',"sent_at":' + now + '}');
      }
    }
    return [names, '[' + texts + ']', size];
  };

  const send = async () => {
    timer = clearTimeout(timer);
    if (busy || navigator.onLine === false) return;
    const [names, body, size] = pick();
    if (!names.length) return;
    busy = true;
    let retryAfter = 0;
    try {
      const keepalive = size < BATCH_CHARS;
      if (keepalive) names.forEach((name) => leaving.add(name));
      const answer = await fetch(url, {
        method: 'POST',
        body,
        keepalive,
        credentials: 'omit',
        signal: AbortSignal.timeout && AbortSignal.timeout(2e4),
      });
      const status = answer.status;
      retryAfter = answer.headers.get('retry-after') * 1e3;
      if (status === 413 && most > 1) {
        most = 1;
      } else if ([202, 207, 400, 413, 415].includes(status)) {
        const results = (await answer.json()).results || [];
        const again = results.filter((r) => /rate_limited$/.test(r.code)).map((r) => names[r.index]);
        if (status !== 202) console.warn('tide: refused', results);
        names.filter((name) => !again.includes(name)).forEach(forget);
        if (again.length) throw 0;
      } else throw 0;
      failures = 0;
    } catch (e) {
      failures++;
      notBefore = Date.now() + (retryAfter || 0) + Math.random() * Math.min(6e4, 500 * 2 ** failures);
    }
    busy = false;
    names.forEach((name) => leaving.delete(name));
    if (waiting.length) later(0);
  };
  const flush = () => send().catch(() => {});

  const leave = () => {
    // What is beaconed stays until a later page has an answer for it: a beacon's own nobody hears.
    for (;;) {
      const [names, body] = pick();
      if (!names.length || !navigator.sendBeacon(url, body)) return;
      names.forEach((name) => leaving.add(name));
    }
  };

  let shown = '';
  const view = guard(() => {
    const page = plain(location.href);
    if (script.dataset.views === 'off' || page === shown) return;
    track('view', { referrer: shown || plain(document.referrer) });
    shown = page;
  });

  const click = (e) => {
    const marked = e.target.closest('[data-tide]');
    if (!marked) return;
    const fields = {};
    for (const key in marked.dataset) {
      const value = marked.dataset[key];
      let name = key.slice(4).replace(/[A-Z]/g, (c) => '_' + c.toLowerCase()).slice(1);
      if (!key.startsWith('tide') || !name) continue;
      if (/^(item|category|merchant|brand|order)$/.test(name)) name += '_id';
      fields[name] = /^(amount|quantity)$/.test(name) ? +value : value;
    }
    track(marked.dataset.tide || 'click', fields);
  };

  const tide = guard((what, ...given) => {
    if (what === 'track') track(...given);
    else if (what === 'user') {
      const before = get(PREFIX + 'u');
      const user = given[0] == null ? '' : given[0] + '';
      // Who comes after another user at the same browser is a new visitor.
      if (before && before !== user) ['u', 'a', 's'].forEach((name) => drop(PREFIX + name));
      if (user) put(PREFIX + 'u', user);
    } else console.warn('tide: unknown call', what);
  });
  tide.ready = true;
  window.tide = tide;
  ((early && early.q) || []).forEach((given) => tide(...given));

  const pushState = history.pushState;
  history.pushState = function (...given) {
    pushState.apply(this, given);
    view();
  };
  addEventListener('popstate', view);
  addEventListener('pagehide', guard(leave));
  addEventListener('pageshow', guard((e) => {
    if (!e.persisted) return;
    leaving.clear(); // back from the browser's cache: what was beaconed gets its answer now
    shown = '';
    view();
  }));
  addEventListener('online', () => {
    failures = notBefore = 0;
    flush();
  });
  document.addEventListener('visibilitychange', () => document.hidden && flush());
  document.addEventListener('click', guard(click), true);
  if (document.prerendering) document.addEventListener('prerenderingchange', view, { once: true });
  else view();
  if (waiting.length) later(LINGER_MS);
})();
