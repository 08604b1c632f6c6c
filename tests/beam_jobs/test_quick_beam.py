"""Quick Beam: what is remembered is what Beam would find out again."""

import inspect

import apache_beam as beam
from apache_beam.coders import VarIntCoder
from apache_beam.io.aws import s3io
from apache_beam.io.filesystems import FileSystems
from apache_beam.transforms import core, userstate

from beam_jobs import quick_beam


class Scale(beam.DoFn):
    def process(self, element, factor=2, window=beam.DoFn.WindowParam):
        yield element * factor


def test_a_method_is_looked_at_once_for_all_objects_and_a_function_each_time():
    looks = []

    def look(function):
        looks.append(function)
        return ["element", "factor"], [2]

    remembered = quick_beam.remember_arguments(look)
    one, two = Scale(), Scale()
    remembered(one.process)[1].append("of the caller alone")
    assert remembered(two.process) == (["element", "factor"], [2])
    assert looks == [one.process]
    for _ in range(2):
        remembered(lambda element: element)
        remembered(one.setup)
    assert [function.__name__ for function in looks[1:]] == ["<lambda>", "setup", "<lambda>"]


def test_beam_remembers_what_it_would_see_again():
    for _ in range(2):
        for function in (Scale().process, Scale().setup, beam.Create([]).expand):
            parameters = inspect.signature(function).parameters.values()
            defaults = [one.default for one in parameters if one.default is not one.empty]
            found = core.get_function_args_defaults(function)
            assert found == ([one.name for one in parameters], defaults)


COUNT = userstate.ReadModifyWriteStateSpec("count", VarIntCoder())
COUNTED = beam.DoFn.StateParam(COUNT)


class Count(beam.DoFn):
    def process(self, element, count=COUNTED):
        count.write((count.read() or 0) + 1)
        yield element


def test_the_state_of_a_step_is_known_by_its_class_but_for_methods_of_its_own():
    for _ in range(2):
        assert userstate.get_dofn_specs(Count()) == ({COUNT}, set())
        assert userstate.get_dofn_specs(Scale()) == (set(), set())
    userstate.get_dofn_specs(Count())[0].clear()
    assert userstate.get_dofn_specs(Count()) == ({COUNT}, set())
    replaced = Scale()
    replaced.process = Count().process
    assert userstate.get_dofn_specs(replaced) == ({COUNT}, set())
    assert userstate.get_dofn_specs(Scale()) == (set(), set())


def test_a_class_of_steps_is_looked_at_once_and_a_step_with_its_own_method_each_time():
    looks = []

    def look(step):
        looks.append(step)
        return set(), set()

    remembered = quick_beam.remember_state(look)
    one, two, replaced = Scale(), Scale(), Scale()
    replaced.process = Count().process
    for step in (one, two, replaced, replaced):
        assert remembered(step) == (set(), set())
    assert looks == [one, replaced, replaced]


def test_calls_of_beams_s3_file_system_share_a_boto3_client_but_no_download(s3_folder):
    uri = f"{s3_folder}/one"
    with FileSystems.create(uri) as file:
        file.write(b"some bytes")
    options = FileSystems.get_filesystem(uri)._options
    one, two = (s3io.S3IO(options=options) for _ in range(2))
    assert one.client is not two.client
    assert one.client.client is two.client.client
    first, second = one.open(uri), two.open(uri)
    assert (first.read(4), second.read(), first.read()) == (b"some", b"some bytes", b" bytes")
