// Where one is: `#/rounds/12?order=gains` → {view: "rounds", id: "12", query}. The back button does the rest.

import { useEffect, useState } from "./vendor/htm-preact.js";

/** The place that a hash names. */
export function placeOf(hash) {
  const [path, search = ""] = hash.replace(/^#\/?/, "").split("?");
  const [view = "", id = null] = path.split("/");
  return { view: view || "overview", id, query: new URLSearchParams(search) };
}

/** The same place with some of its query changed, as a hash. Values that are null or usual are left out. */
export function hashWith(place, changes) {
  const query = new URLSearchParams(place.query);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null) query.delete(name);
    else query.set(name, value);
  }
  const path = [place.view === "overview" ? "" : place.view, place.id].filter(Boolean).join("/");
  return `#/${path}${query.size ? `?${query}` : ""}`;
}

export function usePlace() {
  const [place, setPlace] = useState(placeOf(location.hash));
  useEffect(() => {
    const moved = () => setPlace(placeOf(location.hash));
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return place;
}
