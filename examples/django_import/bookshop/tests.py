"""The tests of the example: ``python manage.py test``."""

from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import TestCase, override_settings

from wippy_queue.contrib.django import runtime
from wippy_queue.testing import drain

from .models import Book, Upload

BOOKS = b"""isbn,title,price,stock
9780306406157,Letters of a River,12.50,3
9780306406158,The Wrong Digit,9.00,1
9781861978769,,free,-1
"""
GOOD = {"isbn": "9780306406157", "title": "The Right Digit", "price": "9.00", "stock": "1"}


@override_settings(SECONDS_PER_ROW=0)
class ImportTest(TestCase):
    """From the form to the stored row."""

    def setUp(self) -> None:
        """Upload a file; its dead letters are no row of a database, and need a hand."""
        self.addCleanup(runtime.purge, "bookshop:rows.dead")
        self.answer = self.client.post("/", {"file": SimpleUploadedFile("books.csv", BOOKS)})
        self.upload = Upload.objects.get()
        self.path = f"/uploads/{self.upload.id}/"

    def progress(self) -> dict:
        """Return what the page asks for."""
        return self.client.get(self.path + "progress").json()

    def test_rows_are_stored_or_rejected(self) -> None:
        """A row is stored as its types say, and another one is a dead letter with its reason."""
        self.assertRedirects(self.answer, self.path)
        self.assertEqual(self.progress()["stored"], 0)
        report = drain(runtime)
        self.assertEqual((report.acked, report.dead_lettered), (1, 2))
        book = Book.objects.get()
        self.assertEqual((book.line, book.cents, book.stock), (2, 1250, 3))
        progress = self.progress()
        self.assertEqual((progress["total"], progress["stored"], progress["rejected"]), (3, 1, 2))
        self.assertEqual(progress["letters"][0]["reason"], "isbn: the check digit is wrong")
        self.assertContains(self.client.get("/"), "1 of 3 stored")

    def test_a_correction_takes_the_place_of_the_dead_letter(self) -> None:
        """It is published with the new fields; what is gone by then is said to be."""
        drain(runtime)
        correct = f"{self.path}letters/{self.progress()['letters'][0]['id']}/correct"
        self.assertEqual(self.client.post(correct, GOOD).status_code, 204)
        self.assertEqual(drain(runtime).acked, 1)
        self.assertEqual(self.progress()["rejected"], 1)
        self.assertTrue(Book.objects.filter(title="The Right Digit").exists())
        self.assertEqual(self.client.post(correct, GOOD).status_code, 409)

    def test_a_replay_is_judged_again(self) -> None:
        """Nothing about the row has changed, so it is rejected again."""
        drain(runtime)
        letter_id = self.progress()["letters"][0]["id"]
        for action in (f"letters/{letter_id}/replay", "replay"):
            self.assertEqual(self.client.post(self.path + action).status_code, 204)
            self.assertGreaterEqual(drain(runtime).dead_lettered, 1)
        self.assertEqual(self.progress()["rejected"], 2)

    def test_a_row_that_comes_again_is_stored_once(self) -> None:
        """A message that is handled twice adds nothing."""
        self.client.post(self.path + "continue")  # nothing is stored yet
        self.assertEqual(drain(runtime).acked, 2)
        self.assertEqual(Book.objects.count(), 1)

    def test_what_is_no_list_of_books_is_refused(self) -> None:
        """The form says why."""
        answer = self.client.post("/", {"file": SimpleUploadedFile("books.csv", b"name\nAda\n")})
        self.assertContains(answer, "names no column isbn", status_code=400)
