"""Tiny MovieLens data in each publisher's layout, and the recipe's script."""

import random

from recipes import DATA, load_script

FOLDER = DATA / "movielens"


# Data are users (id, age, gender, occupation, zip), movies (id, title, year, genres) and ratings (user
# id, movie id, stars, time).
GENRES = ("Action", "Comedy", "Drama", "War")


def random_data(seed, users=6, movies=90):
    """Users with 16 to 60 events, many of them in the same second, in shuffled file order."""
    draw = random.Random(seed)
    people = [
        (str(10 * u + 3), 18 + u, "MF"[u % 2], ("writer", "none")[u % 2], f"{u}4043")
        for u in range(users)
    ]
    films = [
        (
            str(m + 1),
            f"Film {m} (I)",
            1930 + m if m else None,
            tuple(sorted(draw.sample(GENRES, 1 + m % 3))),
        )
        for m in range(movies)
    ]
    ratings = [
        (person[0], film[0], draw.randint(1, 5), 1000 + draw.randint(0, 25))
        for person in people
        for film in draw.sample(films, draw.randint(16, 60))
    ]
    draw.shuffle(ratings)
    return people, films, ratings


def write_lines(path, rows, separator, encoding="latin-1"):
    text = "".join(separator.join(map(str, row)) + "\n" for row in rows)
    path.write_text(text, encoding=encoding)


def titled(title, year):
    return title if year is None else f"{title} ({year})"


def write_100k(folder, data):
    users, movies, ratings = data
    folder.mkdir(parents=True)
    write_lines(folder / "u.user", users, "|")
    write_lines(folder / "u.data", ratings, "\t")
    # The publisher's file ends with an empty line.
    write_lines(folder / "u.genre", [*zip(GENRES, range(len(GENRES)), strict=True), ()], "|")
    write_lines(
        folder / "u.item",
        [
            (
                m,
                titled(title, year),
                "01-Jan-1995",
                "",
                "http://é",
                *(int(g in own) for g in GENRES),
            )
            for m, title, year, own in movies
        ],
        "|",
    )
    return folder


def write_1m(folder, data):
    users, movies, ratings = data
    folder.mkdir(parents=True)
    write_lines(folder / "users.dat", [(u, g, a, o, z) for u, a, g, o, z in users], "::")
    write_lines(folder / "ratings.dat", ratings, "::")
    write_lines(
        folder / "movies.dat",
        [(m, titled(title, year), "|".join(own)) for m, title, year, own in movies],
        "::",
    )
    return folder


def write_recbole(folder, data, name="ml-100k"):
    users, movies, ratings = data
    folder.mkdir(parents=True)
    tables = {
        "user": ("user_id:token age:token gender:token occupation:token zip_code:token", users),
        "inter": ("user_id:token item_id:token rating:float timestamp:float", ratings),
        "item": (
            "item_id:token movie_title:token_seq release_year:token class:token_seq",
            [(m, t, "unkonwn" if y is None else y, " ".join(own)) for m, t, y, own in movies],
        ),
    }
    for suffix, (header, rows) in tables.items():
        write_lines(folder / f"{name}.{suffix}", [header.split(), *rows], "\t", "utf-8")
    return folder


WRITERS = {"ml-100k": write_100k, "ml-1m": write_1m, "recbole": write_recbole}


recipe = load_script("movielens")
