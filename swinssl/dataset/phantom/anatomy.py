"""An abdomen made of implicit shapes: what lies where and in which HU, painted from the outside to the inside.

Lengths in mm; x grows to the patient's right, y to anterior, z to superior, the origin is the middle of the volume.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swinssl.core.geometry import Box, Point
from swinssl.dataset.phantom.space import Array, BentSpace, blended, in_one_piece, smooth_field

LABELS = {"liver": 1, "spleen": 2, "kidney_left": 3, "kidney_right": 4, "liver_tumour": 5}

# HU of what does not take up contrast agent.
AIR, LUNG, TABLE, FAT, SKIN = -1000, -840, -160, -102, 5
GALL, JUICE, CORD, DISC, MARROW, CORTICAL = 8, 22, 35, 85, 170, 420
# HU of what does: native, late arterial, portal venous.
CONTRAST = {
    "muscle": (52, 56, 64),
    "liver": (56, 72, 112),
    "spleen": (48, 128, 118),
    "cortex": (34, 185, 172),
    "medulla": (32, 80, 158),
    "artery": (42, 290, 165),
    "vein": (40, 95, 155),
    "tumour": (30, 36, 50),
}
WHOLE: Box = (slice(None), slice(None), slice(None))
# Fat that keeps two organs apart.
GAP = 2.5
SPINE_PERIOD, DISC_SHARE = 34.0, 0.24
RIB_PERIOD, RIB_SLOPE = 27.0, 0.6


@dataclass
class Canvas:
    """HU and labels (Z, Y, X). Shapes are painted over what is there, blurred over `edge` mm: the partial volume."""

    hu: Array
    label: NDArray[np.uint8]
    edge: float

    def paint(self, distance: Array, hu: float | Array, label: str | None = None) -> None:
        share = np.clip(0.5 - distance / self.edge, 0, 1, dtype=np.float32)
        self.hu += share * (np.float32(hu) - self.hu)
        if label is not None:
            self.label[distance < 0] = LABELS[label]

    def __getitem__(self, box: Box) -> Canvas:
        """The part in a box; what is painted there is painted on the whole."""
        return Canvas(self.hu[box], self.label[box], self.edge)


class Abdomen:
    """One patient: sizes and places are drawn, then everything is painted.

    Args:
        space: the bent grid.
        edge: mm over which edges are blurred.
        phase: of the contrast agent, 0 native, 1 late arterial, 2 portal venous, and between.
        draws: where sizes and places come from.
    """

    def __init__(self, space: BentSpace, *, edge: float, phase: float, draws: np.random.Generator) -> None:
        self.space, self.draws = space, draws
        self.canvas = Canvas(np.full(space.shape, AIR, np.float32), np.zeros(space.shape, np.uint8), edge)
        self.hu = {name: float(np.interp(phase, (0, 1, 2), values)) for name, values in CONTRAST.items()}
        self.half_width, self.half_depth = draws.uniform(128, 148), draws.uniform(90, 103)
        self.fat = draws.uniform(8, 20)
        self.cavity = self._trunk(fat=self.fat, wall=(24, 13), y=8)
        # Front of the spine's bodies; kidneys and great vessels are placed from it.
        self.spine_front = -(self.half_depth - self.fat) + 64
        self.diaphragm = self._height_of_diaphragm()

    def paint(self, *, tumour: bool) -> Canvas:
        """Paint everything, with a tumour in the liver or without."""
        kidney_left, kidney_right = self._kidney_shape(side=-1), self._kidney_shape(side=1)
        liver = in_one_piece(np.maximum(self._liver_shape(), GAP - kidney_right))
        spleen = in_one_piece(np.maximum(self._spleen_shape(), GAP - kidney_left))
        self._wall()
        self._chest()
        self._stomach_and_bowel()
        self._spine()
        self._vessels()
        self.canvas.paint(spleen, self.hu["spleen"], "spleen")
        self._kidney(kidney_left, "kidney_left")
        self._kidney(kidney_right, "kidney_right")
        self._liver(liver)
        if tumour:
            self._tumour(liver)
        return self.canvas

    # --- shapes of organs, negative inside

    def _height_of_diaphragm(self) -> Array:
        """How far above a point it lies, negative in the chest: two domes with a saddle between them."""
        space = self.space
        right, left = (
            top - 0.0065 * (np.square(space.y - 2) + np.square(space.x - x)) - space.z
            for top, x in ((self.draws.uniform(68, 88), 62), (self.draws.uniform(62, 80), -62))
        )
        return -blended(-right, -left, over=30)

    def _liver_shape(self) -> Array:
        right = self.space.ellipsoid(self._near((36, 10, 66), 5), self._about((68, 62, 58), 0.10))
        left = self.space.ellipsoid(self._near((42, 38, 8), 5), self._about((30, 25, 46), 0.15))
        return self._inside_belly(blended(right, left, over=18), WHOLE)

    def _spleen_shape(self) -> Array:
        shape = self.space.ellipsoid(self._near((40, -28, -78), 4), self._about((46, 38, 27), 0.10))
        return self._inside_belly(shape, WHOLE)

    def _kidney_shape(self, *, side: int) -> Array:
        """A bean; its hilum looks to the spine and a little forward."""
        z, y, x = self._near((-8 - 7 * side, self.spine_front - 6, 56 * side), 4)
        a, b, c = self._about((50, 23, 25), 0.10)
        bean = self.space.ellipsoid((z, y, x), (a, b, c))
        hilum = self.space.ellipsoid((z, y + 6, x - 1.05 * c * side), (0.32 * a, 0.6 * b, 0.55 * c))
        return np.maximum(np.maximum(bean, -hilum), self.cavity + 1)

    # --- painting

    def _wall(self) -> None:
        """Table, skin, subcutaneous fat, muscle, and the fat that fills the belly."""
        space, paint = self.space, self.canvas.paint
        skin = self._trunk()
        table = np.abs(space.y + self.half_depth + 14 - 0.0012 * np.square(space.x)) - 5
        paint(np.maximum(table, 3 - skin), TABLE)
        paint(skin, SKIN)
        paint(skin + 2.5, FAT + 6 * smooth_field(space.shape, modes=8, draws=self.draws))
        paint(self._trunk(fat=self.fat), self.hu["muscle"])
        paint(self.cavity, FAT + 8 * smooth_field(space.shape, modes=8, draws=self.draws))

    def _chest(self) -> None:
        """Lung bases over a sheet of diaphragm, the heart, and ribs in the wall."""
        space, paint = self.space, self.canvas.paint
        lungs = np.maximum(self.diaphragm, np.maximum(self.cavity + 3, 24 - np.abs(space.x)))
        paint(np.maximum(self.diaphragm - 4, self.cavity), self.hu["muscle"])
        paint(np.maximum(self.diaphragm, self.cavity + 2), FAT)
        paint(lungs, LUNG + 30 * smooth_field(space.shape, modes=12, draws=self.draws))
        paint(space.ellipsoid((118, 30, -18), (40, 38, 48)), self.hu["vein"])
        turn = 2 * np.pi * (space.z + RIB_SLOPE * space.y + self.draws.uniform(0, RIB_PERIOD)) / RIB_PERIOD
        ribs = np.maximum(np.abs(self.cavity - 6) - 4.5, (0.45 - np.cos(turn)) * RIB_PERIOD / 6)
        ribs = np.maximum(ribs, np.maximum(5 + 0.5 * space.y - space.z, 30 - np.abs(space.x)))
        paint(ribs, CORTICAL)
        paint(ribs + 3, MARROW)

    def _spine(self) -> None:
        """Bodies and discs, the canal, processes behind it, muscles beside it."""
        space, paint, front = self.space, self.canvas.paint, self.spine_front
        for side in (-1, 1):
            paint(space.tube(front - 8, side * 34, (15, 14)) + 0.10 * (space.z + 10), self.hu["muscle"])
        body = space.tube(front - 17, 0, (17, 22))
        level = (space.z + self.draws.uniform(0, SPINE_PERIOD)) % SPINE_PERIOD
        disc = np.abs(level - SPINE_PERIOD / 2) - DISC_SHARE * SPINE_PERIOD / 2
        behind = np.minimum(space.tube(front - 46, 0, (17, 3.5)), space.tube(front - 38, 0, (5, 22)))
        bone = np.minimum(np.maximum(body, -disc), np.maximum(behind, 6 - np.abs(level - SPINE_PERIOD / 2)))
        paint(body, DISC)
        paint(bone, CORTICAL)
        paint(np.maximum(body + 3, 3 - disc), MARROW)
        paint(space.tube(front - 38, 0, (8, 10)) - 1, CORD)

    def _vessels(self) -> None:
        space, front = self.space, self.spine_front
        self.canvas.paint(space.tube(front + 9, -8, (9.5, 9.5)), self.hu["artery"])
        self.canvas.paint(space.tube(front + 9, 19, (9, 12)), self.hu["vein"])

    def _stomach_and_bowel(self) -> None:
        self._hollow(self._near((34, 34, -52), 6), self._about((36, 30, 34), 0.15), full=self.draws.uniform(0.6, 0.8))
        for side in (-1, 1):
            self._colon(side)
        for _ in range(26):
            z, y, x = self.draws.uniform((-105, -5, -78), (26, 56, 65))
            z -= max(0.0, x + 25) * 0.9  # below the liver
            length, radius = self.draws.uniform(22, 40), self.draws.uniform(11, 16)
            radii = (radius, radius, length) if self.draws.random() < 0.6 else (length, radius, radius)
            self._hollow((z, y, x), radii, full=self.draws.uniform(0.55, 1.4))

    def _colon(self, side: int) -> None:
        """The ascending part (right, 1) or the descending one (left, -1), below liver and spleen."""
        x, radius = side * (self.half_width - self.fat - 40), self.draws.uniform(13, 18)
        sway = 7 * np.sin(self.space.z / 17 + side)
        tube = np.maximum(self.space.tube(4 + sway, x - side * sway, (radius, radius)), self.space.z + 12 + 10 * side)
        tube = self._inside_belly(tube, WHOLE)
        self._paint_hollow(tube, WHOLE, surface=self.draws.uniform(0, 14))

    def _hollow(self, centre: Point, radii: Point, *, full: float) -> None:
        """An ellipsoid with a wall, of whose height the share `full` is fluid."""
        box = self.space.box(centre, max(radii) + 2 * self.canvas.edge)
        shape = self._inside_belly(self.space[box].ellipsoid(centre, radii), box)
        self._paint_hollow(shape, box, surface=centre[1] + (2 * full - 1) * radii[1])

    def _paint_hollow(self, shape: Array, box: Box, *, surface: float) -> None:
        """A wall, fluid up to the height y of `surface`, gas above it."""
        paint = self.canvas[box].paint
        paint(shape, self.hu["muscle"])
        paint(shape + 3, JUICE)
        paint(np.maximum(shape + 3, surface - self.space[box].y), AIR + 40)

    def _kidney(self, shape: Array, label: str) -> None:
        self.canvas.paint(shape, self.hu["cortex"], label)
        self.canvas.paint(shape + 8, self.hu["medulla"])

    def _liver(self, shape: Array) -> None:
        """Parenchyma with vessels through it, and the gall bladder below."""
        paint = self.canvas.paint
        gall = self.space.ellipsoid(self._near((6, 40, 42), 5), self._about((20, 12, 12), 0.2))
        paint(self._inside_belly(gall, WHOLE), GALL)
        paint(shape, self.hu["liver"] + 3 * smooth_field(self.space.shape, modes=12, draws=self.draws), "liver")
        course = smooth_field(self.space.shape, modes=6, draws=self.draws)
        across = smooth_field(self.space.shape, modes=6, draws=self.draws)
        vessels = np.maximum(12 * np.hypot(course, across) - 2.2, shape + 6)
        paint(vessels, self.hu["vein"])

    def _tumour(self, liver: Array) -> None:
        """A lump somewhere inside the liver, darker than it, with a necrotic core where it is large."""
        radius = self.draws.uniform(17, 25)
        room = np.flatnonzero(liver < min(-0.7 * radius, liver.min() * 0.6))
        place = np.unravel_index(room[self.draws.integers(len(room))], self.space.shape)
        z, y, x = (float(axis[place]) for axis in (self.space.z, self.space.y, self.space.x))
        lump = self.space.ellipsoid((z, y, x), self._about((radius,) * 3, 0.25))
        lump += 0.10 * radius * smooth_field(self.space.shape, modes=14, draws=self.draws)
        lump = np.maximum(lump, liver + 1)
        self.canvas.paint(lump, self.hu["tumour"], "liver_tumour")
        self.canvas.paint(lump + 0.65 * radius, self.hu["tumour"] - 22)

    # --- geometry

    def _trunk(self, *, fat: float = 0.0, wall: tuple[float, float] = (0.0, 0.0), y: float = 0.0) -> Array:
        """Distance to the trunk's outline, or to that of what lies under fat and wall."""
        depth, width = self.half_depth - fat - wall[0], self.half_width - fat - wall[1]
        power = 2.4
        around = (np.abs(self.space.y - y) / depth) ** power + (np.abs(self.space.x) / width) ** power
        return (around ** (1 / power) - 1) * np.float32((depth * width) ** 0.5)

    def _inside_belly(self, shape: Array, box: Box) -> Array:
        """A shape cut off at the belly's wall and at the diaphragm."""
        return np.maximum(np.maximum(shape, self.cavity[box] + GAP), GAP + 4 - self.diaphragm[box])

    def _near(self, point: Point, mm: float) -> Point:
        z, y, x = np.asarray(point) + self.draws.uniform(-mm, mm, 3)
        return float(z), float(y), float(x)

    def _about(self, radii: Point, share: float) -> Point:
        a, b, c = np.asarray(radii) * self.draws.uniform(1 - share, 1 + share, 3)
        return float(a), float(b), float(c)
