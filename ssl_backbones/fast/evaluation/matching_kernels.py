"""Compiled loops of coco_eval.py and ground_truth.py, from boxes and masks to outcomes.

To be imported only where numba is. They do what pycocotools' `COCOeval.computeIoU` and `evaluateImg` do, in
the same order of floating-point operations. Detections of a class lie in the order of their scores; a
*group* is what one image holds of one class.
"""

import numpy as np
from numba import njit

# What becomes of a detection, at an IoU threshold and for a range of areas.
FALSE, TRUE, IGNORED = 0, 1, 2


# Where areas underflow to 0, the IoU is NaN as in pycocotools, and not an error.
@njit(cache=True, nogil=True, error_model="numpy")
def match_boxes(groups, boxes, areas, truth_boxes, truth, ranges, thresholds):
    """The outcome of each detection: N x ranges x thresholds of FALSE, TRUE, IGNORED.

    Args:
        groups: (starts of groups in members, members: indices of detections, starts of groups in truth).
        boxes, truth_boxes: x, y, width, height.
        areas: of the detections.
        truth: (areas, is crowd, has an id other than 0), by object.
        ranges: R x 2 areas in pixels.
        thresholds: of the IoU.
    """
    starts, members, truth_starts = groups
    outcomes = np.empty((len(areas), len(ranges), len(thresholds)), np.uint8)
    crowd = truth[1]
    for group in range(len(starts) - 1):
        own = members[starts[group] : starts[group + 1]]
        first, end = truth_starts[group], truth_starts[group + 1]
        _ignore_by_area(own, areas, ranges, outcomes)
        if len(own) == 0 or first == end:
            continue
        ious = np.zeros((len(own), end - first))
        for place in range(len(own)):
            x, y, width, height = boxes[own[place]]
            area = width * height
            for index in range(first, end):
                left, top, across, down = truth_boxes[index]
                shared_width = min(width + x, across + left) - max(x, left)
                shared_height = min(height + y, down + top) - max(y, top)
                if shared_width > 0 and shared_height > 0:
                    shared = shared_width * shared_height
                    union = area if crowd[index] else area + across * down - shared
                    ious[place, index - first] = shared / union
        _match(ious, own, first, truth, ranges, thresholds, outcomes)
    return outcomes


@njit(cache=True, nogil=True)
def match_masks(groups, characters, spans, sizes, areas, truth_masks, truth, ranges, thresholds):
    """As `match_boxes`, of masks: (outcomes, whether all masks are regular and the outcomes hold).

    Args:
        characters: of all detections' RLE strings; those of detection i are spans[i, 0] : spans[i, 1].
        sizes: height and width of each detection's image.
        areas: of the detections; NaN, where it is that of the mask, becomes that.
        truth_masks: `Runs` of the objects.
    """
    starts, members, truth_starts = groups
    outcomes = np.empty((len(areas), len(ranges), len(thresholds)), np.uint8)
    crowd, lowest = truth[1], thresholds.min()
    longest = 1
    for span in spans:
        longest = max(longest, span[1] - span[0])
    run_starts, run_ends = np.empty(longest, np.int64), np.empty(longest, np.int64)
    box = np.empty(4, np.int64)
    for group in range(len(starts) - 1):
        own = members[starts[group] : starts[group + 1]]
        first, end = truth_starts[group], truth_starts[group + 1]
        ious = np.zeros((len(own), end - first))
        for place in range(len(own)):
            index = own[place]
            begin, stop = spans[index]
            height, width = sizes[index]
            count, pixels = _decode(
                characters[begin:stop], height, width, run_starts, run_ends, box
            )
            if count < 0:
                return outcomes, False
            if np.isnan(areas[index]):
                areas[index] = pixels
            for other in range(first, end):
                ious[place, other - first] = _iou(
                    run_starts[:count],
                    run_ends[:count],
                    box,
                    (pixels, height, width),
                    other,
                    truth_masks,
                    crowd[other],
                    lowest,
                )
        _ignore_by_area(own, areas, ranges, outcomes)
        if len(own) and first < end:
            _match(ious, own, first, truth, ranges, thresholds, outcomes)
    return outcomes, True


@njit(cache=True, nogil=True)
def decode(characters, spans, sizes):
    """Runs of ones of RLE strings: (starts, ends, spans in these, boxes, pixels, whether all are regular)."""
    starts, ends = np.empty(len(characters), np.int64), np.empty(len(characters), np.int64)
    places, boxes = np.empty((len(spans), 2), np.int64), np.empty((len(spans), 4), np.int64)
    pixels = np.empty(len(spans), np.int64)
    used = 0
    for index in range(len(spans)):
        begin, stop = spans[index]
        count, pixels[index] = _decode(
            characters[begin:stop],
            sizes[index, 0],
            sizes[index, 1],
            starts[used:],
            ends[used:],
            boxes[index],
        )
        if count < 0:
            return starts, ends, places, boxes, pixels, False
        # Assigned as a tuple, they take two seconds to compile.
        places[index, 0], places[index, 1] = used, used + count
        used += count
    return starts[:used].copy(), ends[:used].copy(), places, boxes, pixels, True


@njit(cache=True, nogil=True)
def _decode(characters, height, width, starts, ends, box):
    """Write a mask's runs of ones and its box; returns their number and that of its pixels.

    The number is -1 for a mask that is not regular: it has empty runs, or does not fill the image.
    """
    position, before, last, count, pixels, written = 0, 0, 0, 0, 0, 0
    top, bottom, column = height, 0, 0
    place = 0
    while place < len(characters):
        length, shift, more = 0, 0, True
        while more and place < len(characters):
            bits = np.int64(characters[place]) - 48
            place += 1
            if shift > 55:
                return -1, 0
            length |= (bits & 31) << shift
            shift += 5
            more = bits & 32 != 0
            if not more and bits & 16:
                length |= np.int64(-1) << shift
        if written > 2:
            length += before
        if length < 0 or (length == 0 and written > 0):
            return -1, 0
        if written % 2:
            # Ones: they may go on over several columns.
            while position >= column + height:
                column += height
            starts[count], ends[count] = position, position + length
            count += 1
            pixels += length
            if position + length > column + height:
                top, bottom = 0, height - 1
            else:
                top = min(top, position - column)
                bottom = max(bottom, position + length - 1 - column)
        before, last = last, length
        written += 1
        position += length
    if written == 0 or position != height * width:
        return -1, 0
    if count == 0:
        box[:] = 0
        return 0, 0
    box[0] = starts[0] // height
    box[1] = top
    box[2] = (ends[count - 1] - 1) // height - box[0] + 1
    box[3] = bottom - top + 1
    return count, pixels


@njit(cache=True, nogil=True)
def _iou(starts, ends, box, facts, other, truth_masks, crowd, lowest):
    """IoU of a mask and object `other`; if it is below `lowest`, any other that is."""
    all_starts, all_ends, spans, boxes, all_pixels, sizes = truth_masks
    pixels, height, width = facts
    across = min(box[0] + box[2], boxes[other, 0] + boxes[other, 2]) - max(box[0], boxes[other, 0])
    down = min(box[1] + box[3], boxes[other, 1] + boxes[other, 3]) - max(box[1], boxes[other, 1])
    if across <= 0 or down <= 0:
        return 0.0
    if height != sizes[other, 0] or width != sizes[other, 1]:
        return -1.0
    most = min(pixels, all_pixels[other], across * down)
    highest = most / (pixels if crowd else pixels + all_pixels[other] - most)
    if highest < lowest:
        return 0.0
    begin, stop = spans[other]
    shared = _shared(starts, ends, all_starts[begin:stop], all_ends[begin:stop])
    return shared / (pixels if crowd else pixels + all_pixels[other] - shared)


@njit(cache=True, nogil=True)
def _shared(starts, ends, other_starts, other_ends):
    """Number of pixels that are in both masks."""
    one = np.searchsorted(ends, other_starts[0])
    other = np.searchsorted(other_ends, starts[0])
    shared = 0
    while one < len(starts) and other < len(other_starts):
        low, high = max(starts[one], other_starts[other]), min(ends[one], other_ends[other])
        shared += max(high - low, 0)
        if ends[one] < other_ends[other]:
            one += 1
        else:
            other += 1
    return shared


@njit(cache=True, nogil=True)
def _ignore_by_area(own, areas, ranges, outcomes):
    """As long as nothing matches them, detections are false, or ignored if not of the size in question."""
    for index in own:
        for place in range(len(ranges)):
            area = areas[index]
            outside = area < ranges[place, 0] or area > ranges[place, 1]
            outcomes[index, place, :] = IGNORED if outside else FALSE


@njit(cache=True, nogil=True)
def _match(ious, own, first, truth, ranges, thresholds, outcomes):
    """Match detections, best score first, with objects of the same image and class, `first` and following."""
    areas, crowd, has_id = truth
    count = ious.shape[1]
    lowest = thresholds.min()
    near = np.empty(len(own), np.int64)
    candidates = 0
    for place in range(len(own)):
        for index in range(count):
            if not ious[place, index] < lowest:
                near[candidates] = place
                candidates += 1
                break
    if candidates == 0:
        return
    ignored, order = np.empty(count, np.bool_), np.empty(count, np.int64)
    taken = np.empty(count, np.bool_)
    for part in range(len(ranges)):
        # What is ignored comes last.
        regular = 0
        for index in range(count):
            area = areas[first + index]
            ignored[index] = (
                crowd[first + index] or area < ranges[part, 0] or area > ranges[part, 1]
            )
            regular += not ignored[index]
        before, after = 0, regular
        for index in range(count):
            if ignored[index]:
                order[after] = index
                after += 1
            else:
                order[before] = index
                before += 1
        for level in range(len(thresholds)):
            taken[:] = False
            for place in near[:candidates]:
                best, found = thresholds[level], -1
                for index in order:
                    if taken[index] and not crowd[first + index]:
                        continue
                    if found > -1 and not ignored[found] and ignored[index]:
                        break
                    if ious[place, index] < best:
                        continue
                    best, found = ious[place, index], index
                if found == -1:
                    continue
                taken[found] = True
                if ignored[found]:
                    outcomes[own[place], part, level] = IGNORED
                elif has_id[first + found]:
                    outcomes[own[place], part, level] = TRUE
                # pycocotools takes an object whose id is 0 for none: what matches it stays unmatched.
