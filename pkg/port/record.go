package port

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/shape"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

// recordVersion begins every record; a later format gets another number, so
// that an old binary leaves it alone.
const recordVersion = "tapbridge/1"

// LongestRecord is what an ifalias holds (IFALIASZ, less the final NUL).
const LongestRecord = 255

// ErrNoRecord says that an alias is not one of ours.
var ErrNoRecord = errors.New("no tapbridge record")

// Record is the attachment as one line for the ifalias of its devices. Where it
// would be too long the network's name is hashed, then the container id.
func (a Attachment) Record() string {
	line := a.record()
	for _, long := range []*string{&a.Network, &a.ContainerID} {
		if len(line) > LongestRecord {
			*long = digest(*long)
			line = a.record()
		}
	}
	return line
}

// KeepsID reports whether the record has room for the container id as it is.
func (a Attachment) KeepsID() bool {
	return strings.Contains(a.Record(), " id="+a.ContainerID+" ")
}

func (a Attachment) record() string {
	words := []string{
		recordVersion,
		"net=" + a.Network,
		"id=" + a.ContainerID,
		"if=" + a.IfName,
		"br=" + a.Bridge,
		"mac=" + a.Guest.String(),
		"mode=" + string(a.Mode),
		"fdb=" + string(a.Table),
		fmt.Sprintf("mtu=%d/%d", a.MTU, a.PortMTU),
	}
	if a.Access != noTap {
		words = append(words, fmt.Sprintf("tap=%d:%d", a.Access.Owner, a.Access.Group))
	}
	if a.VLANs != "" {
		words = append(words, "vlan="+strings.ReplaceAll(string(a.VLANs), " ", ","))
	}
	if a.ToGuest != (shape.Limit{}) || a.FromGuest != (shape.Limit{}) {
		words = append(words, fmt.Sprintf("bw=%d:%d/%d:%d", a.ToGuest.Rate, a.ToGuest.Burst, a.FromGuest.Rate, a.FromGuest.Burst))
	}
	if flags := a.letters(); flags != "" {
		words = append(words, "opt="+flags)
	}
	return strings.Join(words, " ")
}

// noTap is the access of an attachment without a tap.
var noTap = tap.Access{Owner: tap.Anyone, Group: tap.Anyone}

// letters are the options in the order of option.
func (a Attachment) letters() (s string) {
	for _, o := range a.options() {
		if *o.on {
			s += string(o.letter)
		}
	}
	return s
}

type option struct {
	letter rune
	on     *bool
}

func (a *Attachment) options() []option {
	return []option{{'i', &a.Isolated}, {'h', &a.Hairpin}, {'l', &a.Locked}, {'s', &a.Guarded}, {'q', &a.Access.MultiQueue}, {'d', &a.DAN}, {'m', &a.Masquerade}, {'p', &a.Promote}}
}

// ParseRecord reads an ifalias; ErrNoRecord when it is not a record of this
// version.
func ParseRecord(alias string) (Attachment, error) {
	words := strings.Split(alias, " ")
	if words[0] != recordVersion {
		return Attachment{}, ErrNoRecord
	}
	a := Attachment{Access: noTap}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		if err := a.read(key, value); err != nil {
			return Attachment{}, fmt.Errorf("%w: %q: %w", ErrNoRecord, word, err)
		}
	}
	if a.Record() != alias {
		return Attachment{}, fmt.Errorf("%w: %q is not complete", ErrNoRecord, alias)
	}
	return a, nil
}

func (a *Attachment) read(key, value string) (err error) {
	switch key {
	case "net":
		a.Network = value
	case "id":
		a.ContainerID = value
	case "if":
		a.IfName = value
	case "br":
		a.Bridge = value
	case "mac":
		a.Guest, err = mac.Parse(value)
	case "mode":
		a.Mode, err = oneOf(value, Modes)
	case "fdb":
		a.Table, err = oneOf(value, []Table{Kernel, Sticky, Static, Roaming, Follow})
	case "mtu":
		a.MTU, a.PortMTU, err = numbers(value, "/")
	case "tap":
		a.Access.Owner, a.Access.Group, err = ids(value)
	case "vlan":
		a.VLANs = bridge.VLANs(strings.ReplaceAll(value, ",", " "))
		_, err = a.VLANs.Ranges()
	case "bw":
		err = a.readLimits(value)
	case "opt":
		err = a.readOptions(value)
	default:
		err = errors.New("unknown word")
	}
	return err
}

func oneOf[T ~string](value string, all []T) (T, error) {
	if !slices.Contains(all, T(value)) {
		return "", fmt.Errorf("not one of %q", all)
	}
	return T(value), nil
}

func numbers(value, sep string) (int, int, error) {
	left, right, _ := strings.Cut(value, sep)
	a, errA := strconv.Atoi(left)
	b, errB := strconv.Atoi(right)
	return a, b, errors.Join(errA, errB)
}

// readLimits leaves it to ParseRecord to find out whether something follows.
func (a *Attachment) readLimits(value string) error {
	_, err := fmt.Sscanf(value, "%d:%d/%d:%d", &a.ToGuest.Rate, &a.ToGuest.Burst, &a.FromGuest.Rate, &a.FromGuest.Burst)
	return err
}

func ids(value string) (int64, int64, error) {
	owner, group, err := numbers(value, ":")
	return int64(owner), int64(group), err
}

func (a *Attachment) readOptions(letters string) error {
	for _, o := range a.options() {
		*o.on = strings.ContainsRune(letters, o.letter)
	}
	if a.letters() != letters {
		return errors.New("unknown option")
	}
	return nil
}

// InNetwork reports whether a belongs to the network of that name, which its
// record may have hashed.
func (a Attachment) InNetwork(name string) bool {
	return a.Network == name || a.Network == digest(name)
}
