package config

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// object is a JSON object by its keys as they were written: unlike a struct's
// fields, they are neither matched regardless of case nor silently repeated.
type object map[string]json.RawMessage

// parseObject also returns a key that stands twice, if there is one.
func parseObject(data []byte) (o object, repeated string, err error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, "", fmt.Errorf("%w: stdin is empty", ErrDecode)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	open, err := dec.Token()
	if err != nil {
		return nil, "", undecodable(err)
	}
	if open != json.Delim('{') {
		return nil, "", fmt.Errorf("%w: want a JSON object", ErrDecode)
	}
	o = object{}
	for dec.More() {
		key, value, err := member(dec)
		if err != nil {
			return nil, "", err
		}
		if _, there := o[key]; there {
			repeated = key
		}
		o[key] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, "", undecodable(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, "", fmt.Errorf("%w: something follows its end", ErrDecode)
	}
	return o, repeated, nil
}

// undecodable says what io.EOF means to somebody who has cut a file short.
func undecodable(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends too early: %w", ErrDecode, err)
	}
	return fmt.Errorf("%w: %w", ErrDecode, err)
}

func member(dec *json.Decoder) (key string, value json.RawMessage, err error) {
	token, err := dec.Token()
	if err != nil {
		return "", nil, undecodable(err)
	}
	key = token.(string) // nothing else can stand here in an object
	if err := dec.Decode(&value); err != nil {
		return "", nil, undecodable(fmt.Errorf("key %q: %w", key, err))
	}
	return key, value, nil
}

// given reports whether the key has a value other than null.
func (o object) given(key string) bool {
	v, there := o[key]
	return there && string(v) != "null"
}

// read decodes the value of a key, if it is given, into into.
func (o object) read(key string, into any) error {
	if !o.given(key) {
		return nil
	}
	if err := json.Unmarshal(o[key], into); err != nil {
		return invalid(key, o[key], reason(err))
	}
	return nil
}

// invalid is an error about the value of one key.
func invalid(key string, value any, why string) error {
	return fmt.Errorf("%w: key %q has value %s: %s", ErrInvalid, key, brief(value), why)
}

// reason says in words of JSON, not of Go, what is wrong with a value.
func reason(err error) string {
	var t *json.UnmarshalTypeError
	if !errors.As(err, &t) {
		return err.Error()
	}
	where := ""
	if t.Field != "" {
		where = fmt.Sprintf("%q: ", t.Field)
	}
	return fmt.Sprintf("%swant %s", where, jsonType(t.Type))
}

func jsonType(t reflect.Type) string {
	switch kind := t.Kind(); {
	case kind == reflect.Bool:
		return "true or false"
	case kind == reflect.String || t.Implements(textual):
		return "a string"
	case kind == reflect.Slice:
		return "a list"
	case kind >= reflect.Int && kind <= reflect.Uint64:
		return "a whole number"
	}
	return "an object"
}

var textual = reflect.TypeFor[encoding.TextUnmarshaler]()

// longestValue bounds what an error repeats of the input, in bytes.
const longestValue = 100

// brief is a value as an error shows it.
func brief(value any) string {
	var text string
	switch v := value.(type) {
	case json.RawMessage:
		var compact bytes.Buffer
		if json.Compact(&compact, v) == nil {
			text = compact.String()
		}
	case string:
		text = fmt.Sprintf("%q", v)
	default:
		text = fmt.Sprint(v)
	}
	if len(text) > longestValue {
		text = strings.ToValidUTF8(text[:longestValue], "") + "…"
	}
	return text
}
