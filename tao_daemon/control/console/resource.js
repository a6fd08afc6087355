// One GET route as a value: what it last answered stays until there is something newer.

import { get } from "./api.js";
import { signOut } from "./store.js";
import { useEffect, useState } from "./vendor/htm-preact.js";

/** `{found, error, retry}`; read again whenever `path` or `again` changes. A null path reads nothing. */
export function useResource(path, again = 0) {
  const [answer, setAnswer] = useState({ path: null, found: null, error: null });
  const [tries, setTries] = useState(0);
  useEffect(() => {
    if (path === null) return undefined;
    let wanted = true;
    const keep = (next) =>
      wanted && setAnswer((old) => ({ path, found: old.path === path ? old.found : null, ...next }));
    get(path).then(
      (found) => keep({ found, error: null }),
      (error) => (error.status === 401 ? signOut(error) : keep({ error })),
    );
    return () => {
      wanted = false;
    };
  }, [path, again, tries]);
  const current = answer.path === path ? answer : { found: null, error: null };
  return { found: current.found, error: current.error, retry: () => setTries(tries + 1) };
}
