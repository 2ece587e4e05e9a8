"""Class files: what people and label tools write is read, and what is wrong in one is named."""

import json

import pytest
from helpers import refused

from segtrain.data.class_files import read_class_file, read_color

CLASSES = [("road", 7, (128, 64, 128), False), ("car", 9, (0, 0, 142), True)]


def read(path, text):
    path.write_text(text, encoding="utf-8")
    return read_class_file(path)


def rows(classes):
    assert [label.train_id for label in classes.labels] == list(range(len(classes.labels)))
    return [(label.name, label.label_id, label.color, label.has_instances) for label in classes.labels]


@pytest.mark.parametrize(("name", "text"), [
    ("hex.csv", "name,label_id,color,has_instances\nroad,7,#804080,false\ncar,9,#00008e,true\n"),
    ("words.csv", "Class,ID,Colour,instances\nroad,7,#804080,false\ncar,9,#00008e,true\n"),
    ("rgb.csv", "Name, R, G, B, label_id, has_instances\nroad,128,64,128,7,false\ncar,0,0,142,9,True\n"),
    ("text.csv", 'name,label_id,color,has_instances\nroad,7,"128,64,128",0\ncar,9,"(0, 0, 142)",1\n'),
    ("list.json", json.dumps([{"name": "road", "label_id": 7, "color": [128, 64, 128]},
                              {"name": "car", "label_id": 9, "color": "#00008e", "has_instances": True}])),
    ("coco.json", json.dumps({"info": {}, "images": [], "categories": [
        {"id": 7, "name": "road", "supercategory": "flat", "color": [128, 64, 128], "isthing": 0},
        {"id": 9, "name": "car", "supercategory": "vehicle", "color": [0, 0, 142], "isthing": 1}]})),
    ("mapping.yaml", "road: {label_id: 7, color: [128, 64, 128]}\ncar:\n  id: 9\n  color: '#00008e'\n"
                     "  has_instances: true\n"),
    ("nested.yml", "classes:\n  7: {name: road, color: '128 64 128'}\n"
                   "  9: {name: car, r: 0, g: 0, b: 142, has_instances: yes}\n"),
])
def test_full_class_files(tmp_path, name, text):
    classes = read(tmp_path / name, text)
    assert classes.has_colors
    assert rows(classes) == CLASSES


@pytest.mark.parametrize(("name", "text", "label_ids"), [
    ("names.json", '["road", "car"]', (0, 1)),
    ("values.json", '{"road": 3, "car": 1}', (3, 1)),
    ("by_value.json", '{"3": "road", "1": "car"}', (3, 1)),
    ("yolo.yaml", "path: ../data\nnc: 2\nnames: [road, car]\n", (0, 1)),
    ("yolo.yml", "train: images\nnames:\n  0: road\n  1: car\n", (0, 1)),
    ("names.yaml", "road:\ncar:\n", (0, 1)),
    ("labels.txt", "__ignore__\nroad\ncar\n", (0, 1)), ("classes.txt", "7 road\n3 car\n", (7, 3)),
    ("_classes.csv", "Pixel Value, Class\n0, road\n1, car\n", (0, 1)),
    ("meta.json", '{"label_map": {"0": "road", "1": "car"}}', (0, 1)),
])
def test_class_files_without_colours(tmp_path, name, text, label_ids):
    classes = read(tmp_path / name, text)
    assert not classes.has_colors
    assert [label.name for label in classes.labels] == ["road", "car"]
    assert tuple(label.label_id for label in classes.labels) == label_ids
    assert classes.labels[0].color != classes.labels[1].color


@pytest.mark.parametrize(("name", "text"), [
    ("class_dict.csv", "name,r,g,b\nroad,128,64,128\ncar,0,0,142\n"),
    ("labelmap.txt", "# label:color_rgb:parts:actions\nroad:128,64,128::\ncar:0,0,142:wheel:\n"),
    ("label_colors.txt", "128 64 128\troad\n0 0 142\tcar\n"), ("colormap.txt", "0 road 128 64 128\n1 car 0 0 142\n"),
    ("colours.json", '{"road": [128, 64, 128], "car": "#00008E"}'),
    ("colours.yaml", "road: '#804080'\ncar: [0, 0, 142]\n"),
])
def test_class_files_with_colours_alone(tmp_path, name, text):
    classes = read(tmp_path / name, text)
    assert classes.has_colors
    assert rows(classes) == [("road", 0, (128, 64, 128), False), ("car", 1, (0, 0, 142), False)]


@pytest.mark.parametrize(("name", "text"), [
    ("c.csv", "name,label_ids,color\nroad,7 8,#804080 #000001\ncar,9,#00008e\n"),
    ("c.yaml", "road: {label_ids: [7, 8], colors: ['#804080', [0, 0, 1]]}\ncar: {label_id: 9, color: '#00008e'}\n")])
def test_classes_of_several_values_and_colours(tmp_path, name, text):
    road, car = read(tmp_path / name, text).labels
    assert (road.ids, road.colors, car.ids, car.colors) == ((7, 8), ((128, 64, 128), (0, 0, 1)), (9,), ((0, 0, 142),))
    with refused("label_id 9 occurs twice", "label_ids: 1 2"):
        read(tmp_path / name, text.replace("8", "9", 1))


def test_a_class_without_its_colour_makes_the_table_useless_for_colour_masks(tmp_path):
    assert not read(tmp_path / "c.csv", "name,color\nroad,#804080\ncar,\n").has_colors


@pytest.mark.parametrize(("name", "text", "parts"), [
    ("a.yaml", "!!python/object/apply:os.system ['touch hacked']", ["not valid YAML", "python/object"]),
    ("a.yaml", "road: !new {a: 1}", ["not valid YAML", "!new"]),
    ("a.yaml", "road: [1, 2\n", ["not valid YAML"]),
    ("a.yaml", "road: 1\nroad: 2\n", ["road", "twice"]),
    ("a.yaml", "names:\n  0: a\n  0: b\n", ["0", "twice"]),
    ("a.yaml", "no: 1\nroad: 2\n", ["False", "no name", "quotes"]),
    ("a.yaml", "", ["must hold a list"]),
    ("a.yaml", "just text", ["must hold a list"]),
    ("a.yaml", "[]", ["lists no class"]),
    ("a.yaml", "a: &a [1, 2]\nb: *a", ["class a", "color [1, 2]"]),
    ("a.json", "{", ["not valid JSON"]),
    ("a.json", "[" * 100_000, ["not valid JSON"]),
    ("a.json", '{"road": 1, "road": 2}', ["road", "twice"]),
    ("a.json", '[{"id": 1}]', ["class number 1", "no name"]),
    ("a.json", '["road", ["car"]]', ["class number 2", "no name"]),
    ("a.json", '[{"name": "road", "id": 65536}]', ["label_id 65536", "0 to 65535"]),
    ("a.json", '[{"name": "road", "id": true}]', ["label_id True"]),
    ("a.json", '[{"name": "road", "id": 1.0}]', ["label_id 1.0"]),
    ("a.json", '[{"name": "road", "color": [1, 2, 300]}]', ["color [1, 2, 300]", "#ff8000"]),
    ("a.json", '[{"name": "road", "isthing": "maybe"}]', ["has_instances maybe"]),
    ("a.json", '[{"name": "ro\\nad"}]', ["no name"]),
    ("a.json", '["\\ud800"]', ["no name"]),
    ("a.json", '{"road": 1, "car": 1}', ["label_id 1", "twice"]),
    ("a.csv", "name,r,g\nroad,1,2\n", ["name, r, g", "or r, g, b"]),
    ("a.csv", "name,color,r,g,b\nroad,#000000,1,2,3\n", ["each once"]),
    ("a.csv", "name,r,g,b\nroad,1,2,256\n", ["line 2", "256"]),
    ("labelmap.txt", "road:128,64::\n", ["line 1", "128,64"]),
    ("a.csv", "name\n" + "road" * 300_000, ["larger than"]),
])
def test_bad_class_files(tmp_path, monkeypatch, name, text, parts):
    monkeypatch.chdir(tmp_path)
    with refused(tmp_path / name, *parts):
        read(tmp_path / name, text)
    assert not (tmp_path / "hacked").exists()


def test_a_yaml_bomb_gives_a_short_message(tmp_path):
    bomb = "a: &a [x, x]\n" + "".join(f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
                                      for old, new in zip("abcdefghijklmn", "bcdefghijklmno", strict=True))
    with pytest.raises(Exception, match="class a") as caught:
        read(tmp_path / "bomb.yaml", bomb)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(("value", "color"), [
    ("#FF8000", (255, 128, 0)), ("255,128,0", (255, 128, 0)), (" rgb(255, 128, 0) ", (255, 128, 0)),
    ("[255 128 0]", (255, 128, 0)), ([255, 128, 0], (255, 128, 0)), ("red", None), ("#ff80", None), ("1,2", None),
    ([1, 2, -3], None), ([1, 2, True], None), (5, None), (None, None), ("256,0,0", None), ([1.0, 2, 3], None),
])
def test_colours(value, color):
    assert read_color(value) == color
