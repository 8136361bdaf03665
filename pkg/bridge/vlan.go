package bridge

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// VLAN is a port's membership of one VLAN, or of a range of them.
type VLAN struct {
	First, Last uint16 // 1 to 4094
	PVID        bool   // untagged frames that come in belong to it
	Untagged    bool   // its frames go out without a tag
}

// VLANs are all VLANs of a port as text, in one form only: "1U 42PU 100-110",
// where P marks the PVID and U those that leave untagged. "" stands for a bridge
// that is not VLAN-aware. As text they can be compared, and kept in a record.
type VLANs string

var errVLANs = errors.New("not a list of VLANs")

// NewVLANs puts ranges in order and joins those that touch.
func NewVLANs(ranges ...VLAN) VLANs {
	sorted := slices.SortedFunc(slices.Values(ranges), func(a, b VLAN) int { return cmp.Compare(a.First, b.First) })
	var joined []VLAN
	for _, v := range sorted {
		last := len(joined) - 1
		if last >= 0 && !v.PVID && !joined[last].PVID && joined[last].Untagged == v.Untagged && joined[last].Last+1 == v.First {
			joined[last].Last = v.Last
			continue
		}
		joined = append(joined, v)
	}
	words := make([]string, len(joined))
	for i, v := range joined {
		words[i] = v.String()
	}
	return VLANs(strings.Join(words, " "))
}

func (v VLAN) String() string {
	text := strconv.Itoa(int(v.First))
	if v.Last != v.First {
		text += "-" + strconv.Itoa(int(v.Last))
	}
	if v.PVID {
		text += "P"
	}
	if v.Untagged {
		text += "U"
	}
	return text
}

// Ranges reads the text back. The error says that it is not of the one form.
func (l VLANs) Ranges() ([]VLAN, error) {
	var ranges []VLAN
	for word := range strings.FieldsSeq(string(l)) {
		v, err := parseVLAN(word)
		if err != nil {
			return nil, err
		}
		if n := len(ranges); n > 0 && v.First <= ranges[n-1].Last {
			return nil, fmt.Errorf("%w: %q is out of order", errVLANs, word)
		}
		ranges = append(ranges, v)
	}
	if NewVLANs(ranges...) != l {
		return nil, fmt.Errorf("%w: %q", errVLANs, string(l))
	}
	return ranges, nil
}

func parseVLAN(word string) (v VLAN, err error) {
	rest, untagged := strings.CutSuffix(word, "U")
	rest, pvid := strings.CutSuffix(rest, "P")
	first, last, isRange := strings.Cut(rest, "-")
	if !isRange {
		last = first
	}
	a, errA := strconv.ParseUint(first, 10, 12)
	b, errB := strconv.ParseUint(last, 10, 12)
	if errA != nil || errB != nil || a < 1 || b < a || b > MaxVLAN {
		return VLAN{}, fmt.Errorf("%w: %q", errVLANs, word)
	}
	return VLAN{uint16(a), uint16(b), pvid, untagged}, nil
}

// MaxVLAN is the largest VLAN id; 0 and 4095 have other meanings (IEEE 802.1Q).
const MaxVLAN = 4094

// IDs are the VLANs one by one; 0 alone when there are none, which is what the
// kernel calls a bridge's only table then.
func (l VLANs) IDs() []uint16 {
	ranges, err := l.Ranges()
	if err != nil || len(ranges) == 0 {
		return []uint16{0}
	}
	var ids []uint16
	for _, r := range ranges {
		for id := r.First; id <= r.Last; id++ {
			ids = append(ids, id)
		}
	}
	return ids
}
