import { FieldError, Input, Label, NumberField, Text, TextArea, TextField, type NumberFieldProps, type TextFieldProps } from 'react-aria-components';

/** A labelled text field with the form's errors under it. */
export function TextInput({ label, hint, ...props }: TextFieldProps & { label: string; hint?: string }) {
  return (
    <TextField {...props} className="field">
      <Label>{label}</Label>
      <Input className="input" />
      {hint !== undefined && (
        <Text slot="description" className="hint">
          {hint}
        </Text>
      )}
      <FieldError />
    </TextField>
  );
}

/** A labelled field for some sentences. */
export function LongTextInput({ label, hint, ...props }: TextFieldProps & { label: string; hint?: string }) {
  return (
    <TextField {...props} className="field">
      <Label>{label}</Label>
      <TextArea className="input" rows={3} />
      {hint !== undefined && (
        <Text slot="description" className="hint">
          {hint}
        </Text>
      )}
      <FieldError />
    </TextField>
  );
}

/** A labelled number field that takes numbers as people of the browser's locale write them. */
export function NumberInput({ label, hint, ...props }: NumberFieldProps & { label: string; hint?: string }) {
  return (
    <NumberField {...props} className="field">
      <Label>{label}</Label>
      <Input className="input number" />
      {hint !== undefined && (
        <Text slot="description" className="hint">
          {hint}
        </Text>
      )}
      <FieldError />
    </NumberField>
  );
}
