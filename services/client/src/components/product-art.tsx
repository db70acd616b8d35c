import type { ReactNode } from 'react';
import './product-art.css';

/**
 * A picture of a product: what its name says it is, or else an abstract still
 * life, in colors that belong to its id. It is decoration; the name stands
 * beside it.
 */
export function ProductArt({ id, name = '' }: { id: string; name?: string }) {
  const seed = hash(id);
  // What lies outside the view box shows where the place has another shape: the wall continues.
  return (
    <svg
      className="art"
      viewBox="0 0 200 160"
      preserveAspectRatio="xMidYMid meet"
      aria-hidden="true"
      style={{ '--art-hue': hues[seed % hues.length] } as React.CSSProperties}
    >
      <rect className="a0" x="-400" y="-400" width="1000" height="960" />
      <circle className="a0b" cx={seed % 2 === 0 ? 138 : 62} cy="70" r="62" />
      <ellipse className="shade" cx="100" cy="133" rx="72" ry="5" />
      {motif(name)?.() ?? stillLife(seed)}
    </svg>
  );
}

// Hues that look well beside each other and keep clear of the colors of states.
const hues = [255, 40, 165, 300, 80, 215, 340, 130];

/** FNV-1a: the same id has the same look everywhere. */
export function hash(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return h >>> 0;
}

/**
 * Finds the motif for the thing that a name names: the last known word before
 * what describes it ("Desk lamp with daylight sensor" is a lamp).
 */
export function motif(name: string): (() => ReactNode) | undefined {
  const [thing = ''] = name.toLowerCase().split(/,| with | for | in /);
  for (const word of thing.split(/[^a-z]+/).reverse()) {
    const found = motifs[word] ?? motifs[word.replace(/s$/, '')];
    if (found) return found;
  }
  return undefined;
}

const keyboard = () => (
  <>
    <rect className="a1" x="30" y="72" width="140" height="58" rx="9" />
    {[0, 1, 2].map((row) =>
      [0, 1, 2, 3, 4, 5, 6, 7].map((column) => (
        <rect
          key={`${row}-${column}`}
          className={row === 0 && column === 0 ? 'ax' : row === 2 && column === 7 ? 'a2' : 'a3'}
          x={38 + column * 15.8}
          y={79 + row * 12}
          width="13"
          height="9.5"
          rx="2.5"
        />
      )),
    )}
    <rect className="a2" x="38" y="115" width="28.8" height="9" rx="2.5" />
    <rect className="a3" x="69.6" y="115" width="60.4" height="9" rx="2.5" />
    <rect className="a2" x="132.8" y="115" width="28.8" height="9" rx="2.5" />
  </>
);

const monitor = () => (
  <>
    <path className="a2" d="M91 104h18v22H91z" />
    <rect className="a1" x="66" y="124" width="68" height="7" rx="3.5" />
    <rect className="a1" x="32" y="28" width="136" height="82" rx="8" />
    <rect className="a3" x="38" y="34" width="124" height="70" rx="4" />
    <path className="a4" d="M38 104V82l34-26 30 24 22-14 38 30v4a4 4 0 0 1-4 4H42a4 4 0 0 1-4-4z" />
    <circle className="ax" cx="136" cy="52" r="9" />
  </>
);

const dock = () => (
  <>
    <path className="s2" d="M150 108h12q14 0 14-14V52" />
    <path className="a1" d="M168 34h16v20h-16z" />
    <rect className="a1" x="24" y="84" width="128" height="46" rx="11" />
    <rect className="a2" x="24" y="84" width="128" height="15" rx="7.5" />
    {[36, 60, 84].map((x) => (
      <rect key={x} className="a3" x={x} y="108" width="17" height="9" rx="3" />
    ))}
    <circle className="a3" cx="116" cy="112.5" r="5" />
    <circle className="ax" cx="138" cy="112.5" r="3.5" />
  </>
);

const headphones = () => (
  <>
    <path className="s1" d="M54 104V86a46 46 0 0 1 92 0v18" />
    <rect className="a2" x="40" y="84" width="28" height="48" rx="14" />
    <rect className="a2" x="132" y="84" width="28" height="48" rx="14" />
    <rect className="a3" x="58" y="90" width="12" height="36" rx="6" />
    <rect className="a3" x="130" y="90" width="12" height="36" rx="6" />
    <circle className="ax" cx="49" cy="108" r="3.5" />
  </>
);

const desk = () => (
  <>
    <path className="a1" d="M46 74h9v54h-9zM145 74h9v54h-9z" />
    <rect className="a1" x="34" y="126" width="33" height="6" rx="3" />
    <rect className="a1" x="133" y="126" width="33" height="6" rx="3" />
    <rect className="a2" x="20" y="66" width="160" height="11" rx="4" />
    <rect className="a3" x="108" y="77" width="34" height="13" rx="2" />
    <path className="a3" d="M60 66v-6h20v6zM67 60V36h6v24z" />
    <rect className="a1" x="46" y="24" width="48" height="28" rx="3" />
    <path className="a3" d="M135 50h20l-3 16h-14z" />
    <path className="ax" d="M144 50c-12-4-14-14-12-20 9 2 13 9 13 20zm2 0c0-10 4-16 12-17 1 8-3 15-12 17z" />
  </>
);

const lamp = () => (
  <>
    <path className="glow" d="m64 62-38 70h84L90 50z" />
    <path className="s1" d="M134 128V88L92 50" />
    <circle className="a3" cx="134" cy="88" r="5" />
    <path className="a2" d="M98 40 56 66a24 24 0 0 1-1-6 30 30 0 0 1 34-28c4 1 7 4 9 8z" />
    <circle className="bulb" cx="80" cy="58" r="8" />
    <path className="a2" d="M98 40 56 66l-1-6 40-26z" />
    <rect className="a1" x="112" y="124" width="46" height="8" rx="4" />
  </>
);

const webcam = () => (
  <>
    <path className="a2" d="M84 92h32l8 32a6 6 0 0 1-6 8H82a6 6 0 0 1-6-8z" />
    <rect className="a1" x="38" y="40" width="124" height="58" rx="29" />
    <circle className="a2" cx="100" cy="69" r="25" />
    <circle className="a1" cx="100" cy="69" r="17" />
    <circle className="a3" cx="94" cy="63" r="5.5" />
    <circle className="ax" cx="146" cy="69" r="4" />
  </>
);

const laptop = () => (
  <>
    <rect className="a1" x="48" y="36" width="104" height="68" rx="6" />
    <rect className="a3" x="54" y="42" width="92" height="56" rx="3" />
    <path className="a4" d="M54 98V84l26-20 24 19 14-9 28 22v2z" />
    <path className="a2" d="M34 104h132l-4 8H38z" />
    <path className="s1 thin" d="m60 112-16 19h104M140 112l16 19" />
  </>
);

const keycap = () => (
  <>
    <path className="a2" d="M120 132h56l-8-38h-40z" />
    <path className="a3" d="M130 97h36l5 24h-46z" />
    <path className="a2" d="M22 132h52l-7-34H29z" />
    <path className="a3" d="M31 101h34l5 21H26z" />
    <path className="a1" d="M52 132h96l-14-74q-2-8-10-8H76q-8 0-10 8z" />
    <path className="ax" d="M78 55h44q6 0 7 6l7 40q1 6-6 6H70q-7 0-6-6l7-40q1-6 7-6z" />
    <path className="s4 thin" d="M112 70v14H88m7-7-7 7 7 7" />
  </>
);

const cup = () => (
  <>
    <path className="s3 thin" d="M86 42c-6-8 6-12 0-22M108 42c-6-8 6-12 0-22" />
    <path className="s2" d="M134 70h8q16 0 16 14t-16 14h-10" />
    <path className="a1" d="M54 54h84v40q0 30-30 30H84q-30 0-30-30z" />
    <path className="a2" d="M54 54h84v10H54z" />
    <rect className="a3" x="36" y="124" width="120" height="8" rx="4" />
    <circle className="ax" cx="96" cy="92" r="10" />
  </>
);

const chair = () => (
  <>
    <path className="s1 thin" d="M100 98v22m0 0-32 10m32-10 32 10m-32-10v12" />
    <rect className="a2" x="62" y="24" width="76" height="58" rx="16" />
    <rect className="a3" x="72" y="34" width="56" height="38" rx="10" />
    <rect className="a1" x="54" y="84" width="92" height="16" rx="8" />
  </>
);

const mouse = () => (
  <>
    <path className="s2 thin" d="M100 44c0-22 34-8 34-34" />
    <rect className="a1" x="66" y="40" width="68" height="92" rx="34" />
    <path className="a2" d="M66 82V74a34 34 0 0 1 33-34v42z" />
    <rect className="ax" x="95" y="54" width="10" height="20" rx="5" />
  </>
);

const speaker = () => (
  <>
    <rect className="a1" x="62" y="22" width="76" height="110" rx="14" />
    <circle className="a2" cx="100" cy="94" r="27" />
    <circle className="a3" cx="100" cy="94" r="16" />
    <circle className="a1" cx="100" cy="94" r="6" />
    <circle className="a2" cx="100" cy="46" r="13" />
    <circle className="ax" cx="100" cy="46" r="5" />
  </>
);

const phone = () => (
  <>
    <rect className="a1" x="68" y="18" width="64" height="114" rx="13" />
    <rect className="a3" x="73" y="23" width="54" height="104" rx="9" />
    <path className="a4" d="M73 118V92l20-16 18 14 16-10v38q0 9-9 9H82q-9 0-9-9z" />
    <rect className="a1" x="89" y="28" width="22" height="6" rx="3" />
    <circle className="ax" cx="112" cy="56" r="8" />
  </>
);

const bag = () => (
  <>
    <path className="s1" d="M78 52V42a22 22 0 0 1 44 0v10" />
    <path className="a1" d="M56 48h88l12 74a9 9 0 0 1-9 10H53a9 9 0 0 1-9-10z" />
    <path className="a2" d="M50 84h100l6 38a9 9 0 0 1-9 10H53a9 9 0 0 1-9-10z" />
    <rect className="ax" x="90" y="78" width="20" height="13" rx="4" />
  </>
);

const book = () => (
  <>
    <rect className="a1" x="38" y="106" width="124" height="26" rx="5" />
    <path className="a4" d="M46 111h116v16H46z" />
    <rect className="a2" x="48" y="80" width="112" height="26" rx="5" />
    <path className="a4" d="M48 85h104v16H48z" />
    <path className="a1" d="m62 34 78 14-6 32-78-14z" />
    <path className="ax" d="m112 43 12 2-5 27-6-5-7 3z" />
  </>
);

const plant = () => (
  <>
    <path className="s1 thin" d="M100 92V50" />
    <path className="a2" d="M98 86C62 82 50 58 54 36c26 4 44 22 44 50zm4-10c2-28 18-44 44-48 4 26-10 46-44 48z" />
    <path className="a3" d="M99 54c-14-12-12-30-2-40 12 10 14 26 2 40z" />
    <path className="a1" d="M66 90h68l-8 36a8 8 0 0 1-8 6H82a8 8 0 0 1-8-6z" />
    <rect className="ax" x="62" y="86" width="76" height="13" rx="5" />
  </>
);

const motifs: Readonly<Record<string, () => ReactNode>> = {
  keyboard,
  monitor, display: monitor, screen: monitor, tv: monitor,
  dock, hub: dock, adapter: dock, charger: dock, router: dock,
  headphone: headphones, headset: headphones, earphone: headphones,
  desk, table: desk, workbench: desk,
  lamp, light: lamp, lantern: lamp,
  webcam, camera: webcam,
  laptop, notebook: laptop, stand: laptop,
  keycap, key: keycap, switch: keycap,
  cup, mug: cup, espresso: cup, coffee: cup, tea: cup, teapot: cup,
  chair, stool: chair, armchair: chair,
  mouse, trackball: mouse,
  speaker, loudspeaker: speaker, subwoofer: speaker,
  phone, smartphone: phone, tablet: phone,
  bag, backpack: bag, tote: bag, case: bag,
  book, notepad: book, journal: book,
  plant, pot: plant, vase: plant, tree: plant,
}; // prettier-ignore

/** Shapes for what has no motif; four of each kind make 64 arrangements. */
function stillLife(seed: number): ReactNode {
  const tall = (seed >>> 3) & 3;
  const round = (seed >>> 5) & 3;
  const small = (seed >>> 7) & 3;
  return (
    <>
      {tall === 0 && <path className="a2" d="M48 132V72a24 24 0 0 1 48 0v60z" />}
      {tall === 1 && <path className="a2" d="m72 28 32 104H40z" />}
      {tall === 2 && <rect className="a2" x="50" y="40" width="42" height="92" rx="6" />}
      {tall === 3 && <path className="a2" d="M52 132q-8-46 12-62V38h16v32q20 16 12 62z" />}
      {round === 0 && <circle className="a1" cx="124" cy="98" r="34" />}
      {round === 1 && <path className="a1" d="M88 132a36 36 0 0 1 72 0z" />}
      {round === 2 && <rect className="a1" x="92" y="72" width="64" height="60" rx="14" />}
      {round === 3 && <path className="a1" d="M90 84h70q0 48-35 48T90 84z" />}
      {small === 0 && <circle className="ax" cx="96" cy="118" r="14" />}
      {small === 1 && <rect className="ax" x="80" y="108" width="24" height="24" rx="5" />}
      {small === 2 && <path className="ax" d="m94 102 17 30H77z" />}
      {small === 3 && <path className="ax" d="M78 132a18 18 0 0 1 36 0z" />}
      <circle className="a3" cx={round === 2 ? 124 : 134} cy={round === 1 ? 118 : 88} r="6" />
    </>
  );
}
