"""Choose what stands on and beside the road, and where."""

import numpy as np

from segtrain.data.streets.objects import (
    VEHICLES,
    paint_bicycle,
    paint_building,
    paint_clutter,
    paint_fence,
    paint_lamp,
    paint_pedestrian,
    paint_sign,
    paint_tree,
    paint_vehicle,
)
from segtrain.data.streets.shapes import Thing
from segtrain.data.streets.world import FAR, NEAR, Street, draw_distance


def lay_out(rng: np.random.Generator, street: Street) -> list[Thing]:
    """Choose all that stands on and beside the road."""
    things = [_choose_distant(rng, x) for x in rng.uniform(-80, 80, 9)]
    for side in (-1, 1):
        for choose in (_choose_houses, _choose_greenery, _choose_fences, _choose_furniture, _choose_parked,
                       _choose_people):
            things += choose(rng, street, side)
    return _drop_collisions(things + _choose_traffic(rng, street))


def _drop_collisions(things: list[Thing]) -> list[Thing]:
    """Drop the vehicles and bicycles that would stand inside an earlier one."""
    kept, taken = [], np.empty((0, 4))
    for thing in things:
        if thing.paint in (paint_vehicle, paint_bicycle):
            (width, _, length), cosine, sine = thing.size, abs(np.cos(thing.yaw)), abs(np.sin(thing.yaw))
            place = np.array((thing.x, thing.z, cosine * width + sine * length, sine * width + cosine * length))
            if (np.abs(taken[:, :2] - place[:2]) < (taken[:, 2:] + place[2:]) / 2 + 0.1).all(1).any():
                continue
            taken = np.vstack((taken, place))
        kept.append(thing)
    return kept


def _choose_distant(rng: np.random.Generator, x: float) -> Thing:
    """Choose a tree or a house at the end of the view."""
    z, size = rng.uniform(130, 170), (rng.uniform(10, 26), rng.uniform(5, 18), 12.0)
    if rng.random() < 0.5:
        return Thing(paint_tree, x, z, size, style="bush")
    return Thing(paint_building, x, z, size)


def _choose_houses(rng: np.random.Generator, street: Street, side: int) -> list[Thing]:
    """Choose the row of houses on one side (-1: left, 1: right)."""
    green = street.greens[side > 0]
    front = street.half + street.pavements[side > 0] + (rng.uniform(3, 9) if green else 0.0)
    style_height, gaps = rng.uniform(5, 15), rng.uniform(0.3, 0.8) if green else rng.uniform(0, 0.2)
    houses, start = [], rng.uniform(-6, 3)
    while start < FAR:
        length, height = rng.uniform(7, 19), style_height * rng.uniform(0.7, 1.35)
        middle, setback = start + length / 2, (0.0, 0.0, 0.6)[rng.integers(3)]
        inside = street.is_free(start) and street.is_free(start + length) and street.is_free(middle)
        if inside and start + length > NEAR + 2 and rng.random() > gaps:
            size = (rng.uniform(7, 11), height, length)
            houses.append(Thing(paint_building, side * (front + setback), middle, size, bias=length / 2))
            if rng.random() < 0.4:
                x, z = side * (front - 0.4), max(5.0, rng.uniform(start, start + length))
                size = (rng.uniform(0.6, 1.1), rng.uniform(3, 4.5), 0.1)
                houses.append(Thing(paint_sign, x, z, size, style="wall"))
        start += length
    return houses


def _choose_greenery(rng: np.random.Generator, street: Street, side: int) -> list[Thing]:
    """Choose the trees of one side: many in a park, a few along houses."""
    green = street.greens[side > 0]
    edge = street.half + street.pavements[side > 0]
    style, trees = ("", "", "bare")[rng.integers(3)], []
    for _ in range(rng.integers(6, 13) if green else rng.integers(0, 4)):
        z = draw_distance(rng, 8, 80)
        if green and rng.random() < 0.35:
            size, x, kind = (rng.uniform(2, 4), rng.uniform(1.2, 2.6), 1.0), edge + rng.uniform(1, 3), "bush"
        else:
            height = rng.uniform(4.5, 11)
            x, kind = edge + rng.uniform(1.5, 7) if green else edge - rng.uniform(0.5, 1.0), style
            size = (height * rng.uniform(0.55, 0.85), height, 3.0)
        if street.is_free(z):
            trees.append(Thing(paint_tree, side * x, z, size, style=kind))
    return trees


def _choose_fences(rng: np.random.Generator, street: Street, side: int) -> list[Thing]:
    """Choose a fence behind the pavement of a park, or now and then a railing at the kerb."""
    green = street.greens[side > 0]
    if rng.random() > (0.75 if green else 0.25):
        return []
    style = ("railing", "pickets", "boards")[rng.integers(3)] if green else "railing"
    x = street.half + (street.pavements[side > 0] + 0.2 if green else 0.3)
    height, start = rng.uniform(0.9, 1.8) if green else 1.0, rng.uniform(1.5, 12)
    length = 4.0  # short stretches, so that they follow the bend and are sorted well among other things
    starts = np.arange(start, start + rng.uniform(8, 40), length)
    return [Thing(paint_fence, side * x, z, (0.1, height, length), style=style)
            for z in starts + length / 2 if street.is_free(z, length / 2)]


def _choose_furniture(rng: np.random.Generator, street: Street, side: int) -> list[Thing]:
    """Choose lamps, signs, bollards, bins and parked bicycles of one side."""
    kerb, room = street.half + 0.4, street.pavements[side > 0] - 0.8
    lamp_height, first, step = rng.uniform(5, 8), rng.uniform(6, 20), rng.uniform(14, 26)
    far = 60 if rng.random() < 0.7 else first
    things = [Thing(paint_lamp, side * kerb, z, (0.15, lamp_height, 0.15)) for z in np.arange(first, far, step)]
    for _ in range(rng.integers(1, 4)):
        size = (rng.uniform(0.5, 0.9), rng.uniform(2.2, 3.2), 0.1)
        style = "lights" if rng.random() < 0.25 else "post"
        things.append(Thing(paint_sign, side * kerb, draw_distance(rng, 7, 40), size, style=style))
    if rng.random() < 0.3:
        start = rng.uniform(6, 15)
        things += [Thing(paint_lamp, side * kerb, z, (0.1, 0.9, 0.1), style="bollard")
                   for z in np.arange(start, start + 12, 2)]
    for _ in range(rng.integers(0, 3)):
        size = (rng.uniform(0.5, 0.9), rng.uniform(0.7, 1.3), rng.uniform(0.5, 1.8))
        x, z = side * (kerb + rng.uniform(0.3, 1) * room), draw_distance(rng, 5, 30)
        things.append(Thing(paint_clutter, x, z, size, yaw=rng.uniform(-0.3, 0.3)))
    if rng.random() < 0.3:
        x, z = side * (kerb + room), draw_distance(rng, 6, 25)
        things.append(Thing(paint_bicycle, x, z, (0.5, 1.1, 1.7), yaw=rng.uniform(0.8, 2.2), style="parked"))
    return things


def _choose_vehicle(rng: np.random.Generator, x: float, z: float, yaw: float) -> Thing:
    """Choose a vehicle of any style."""
    style = str(rng.choice(list(VEHICLES), p=(0.35, 0.28, 0.2, 0.12, 0.05)))
    width, height, length = np.array(VEHICLES[style][0]) * rng.uniform(0.93, 1.07, 3)
    return Thing(paint_vehicle, x, max(z, NEAR + 0.3 + length / 2), (width, height, length), yaw, style,
                 bias=-length / 2)


def _choose_parked(rng: np.random.Generator, street: Street, side: int) -> list[Thing]:
    """Choose the row of parked cars of one side, if there is one."""
    if rng.random() < 0.55:
        return []
    cars: list[Thing] = []
    z, density = rng.uniform(6, 24), rng.uniform(0.3, 0.9)
    while z < 60 and len(cars) < 7:
        if rng.random() < density and street.is_free(z, 3):
            yaw = (np.pi if side > 0 else 0.0) + rng.normal(0, 0.04)
            cars.append(_choose_vehicle(rng, side * (street.half - rng.uniform(0.8, 1.1)), z, yaw))
        z += rng.uniform(5.5, 8)
    return cars


def _choose_people(rng: np.random.Generator, street: Street, side: int) -> list[Thing]:
    """Choose who walks on one pavement, alone or side by side."""
    people = []
    for _ in range(rng.integers(1, 5)):
        z = draw_distance(rng, 6, 45)
        x = street.half + rng.uniform(0.4, street.pavements[side > 0] - 0.4)
        for companion in range(1 + (rng.random() < 0.3)):
            size = (0.5, rng.uniform(1.5, 1.9), 0.4)
            people.append(Thing(paint_pedestrian, side * (x + 0.6 * companion), z + 0.2 * companion, size))
    return people


def _choose_traffic(rng: np.random.Generator, street: Street) -> list[Thing]:
    """Choose what moves on the road; one keeps to the left."""
    lane, things = street.half / 2, []
    if rng.random() < 0.6:
        things.append(_choose_vehicle(rng, -lane, draw_distance(rng, 12, 50), rng.normal(0, 0.05)))
    for z in [draw_distance(rng, 7, 70) for _ in range(rng.integers(0, 4))]:
        things.append(_choose_vehicle(rng, lane, z, np.pi + rng.normal(0, 0.06)))
    if street.crossing[0] < FAR and rng.random() < 0.6:
        middle = sum(street.crossing) / 2
        x, yaw = rng.uniform(-2, 2) * street.half, np.pi / 2 * (-1, 1)[rng.integers(2)]
        things.append(_choose_vehicle(rng, x, middle, yaw))
    for _ in range(rng.integers(0, 6)):
        side, z = (-1, 1)[rng.integers(2)], draw_distance(rng, 6, 32)
        yaw = rng.normal(0, 0.35) if rng.random() < 0.6 else rng.uniform(0.9, 2.2)
        x = side * (street.half - rng.uniform(0.4, 2.6))
        things.append(Thing(paint_bicycle, x, z, (0.6, 1.8, 1.7), yaw))
    if rng.random() < 0.25:
        x, z = rng.uniform(-1, 1) * street.half, draw_distance(rng, 8, 30)
        things.append(Thing(paint_pedestrian, x, z, (0.5, rng.uniform(1.5, 1.9), 0.4)))
    return things
